"""A face goes in; its 15 keypoints and its emotion come out."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from emotion_ai.contract import EMOTIONS, KEYPOINTS

if TYPE_CHECKING:
    from emotion_ai.client import FaceClient
    from emotion_ai.inference.reader import FaceReader

__all__ = ["EMOTIONS", "KEYPOINTS", "FaceClient", "FaceReader", "__version__"]

__version__ = version("emotion-ai")

_LAZY = {"FaceClient": "emotion_ai.client", "FaceReader": "emotion_ai.inference.reader"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:  # FaceReader brings PyTorch, which a client does without
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
