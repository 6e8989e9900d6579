"""Finds 15 keypoints and the emotion of every face in a photo."""

from importlib.metadata import version
from typing import TYPE_CHECKING

from emotion_ai.contract import EMOTIONS, KEYPOINTS

if TYPE_CHECKING:
    from emotion_ai.client import FaceClient
    from emotion_ai.inference.reader import FaceReader

__all__ = ["EMOTIONS", "KEYPOINTS", "FaceClient", "FaceReader", "__version__"]

__version__ = version("emotion-ai")


def __getattr__(name: str) -> object:
    """Imports the readers on first use; `FaceReader` needs PyTorch, which `FaceClient` does without."""
    if name == "FaceClient":
        from emotion_ai.client import FaceClient

        return FaceClient
    if name == "FaceReader":
        from emotion_ai.inference.reader import FaceReader

        return FaceReader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
