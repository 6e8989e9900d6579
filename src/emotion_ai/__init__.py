"""Finds 15 keypoints and the emotion of every face in a photo."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

from emotion_ai.contract import EMOTIONS, KEYPOINTS

if TYPE_CHECKING:
    from emotion_ai import video
    from emotion_ai.client import AsyncFaceClient, FaceClient
    from emotion_ai.inference.reader import FaceReader

__all__ = ["EMOTIONS", "KEYPOINTS", "AsyncFaceClient", "FaceClient", "FaceReader", "__version__", "video"]

__version__ = version("emotion-ai")


def __getattr__(name: str) -> object:
    """Imports readers and clients on first use; `FaceReader` needs PyTorch, which the clients do without."""
    if name in ("AsyncFaceClient", "FaceClient"):
        from emotion_ai import client

        return getattr(client, name)
    if name == "FaceReader":
        from emotion_ai.inference.reader import FaceReader

        return FaceReader
    if name == "video":
        return import_module("emotion_ai.video")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
