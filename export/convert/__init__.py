"""Conversion of PyTorch networks to versions that TensorFlow Serving loads.

`convert` publishes any module with image inputs; `emotion-ai export` publishes the networks of faces.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emotion_ai_export.convert.interface import ImageFiles
    from emotion_ai_export.convert.module_export import Converted, ConvertOptions, convert

__all__ = ["ConvertOptions", "Converted", "ImageFiles", "convert"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from emotion_ai_export.convert import interface, module_export  # PyTorch and TensorFlow load only when used

    return getattr(interface if name == "ImageFiles" else module_export, name)
