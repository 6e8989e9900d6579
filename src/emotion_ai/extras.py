"""Modules of optional dependencies, imported when they are first needed."""

import importlib
from types import ModuleType

from emotion_ai.errors import MissingExtraError

_EXTRAS = {
    "torch": "train",
    "torchvision": "train",
    "pytorch_lightning": "train",
    "hydra": "train",
    "omegaconf": "train",
    "matplotlib": "train",
    "pandas": "train",
    "safetensors": "train",
    "scipy": "train",
    "pytorch_grad_cam": "train",
    "seaborn": "train",
    "sklearn": "train",
    "tensorboard": "train",
    "torchmetrics": "train",
    "google": "grpc",
    "grpc": "grpc",
    "gradio": "web",
    "onnx": "export",
    "onnx_tf": "export",
    "onnxruntime": "export",
    "starlette": "serve",
    "tensorflow": "serve",
    "uvicorn": "serve",
}


def missing_extra(error: ModuleNotFoundError) -> MissingExtraError | None:
    """The error that names the extra to install; None where the module belongs to no extra."""
    extra = _EXTRAS.get((error.name or "").partition(".")[0])
    if extra is None:
        return None
    return MissingExtraError(f"this needs {error.name}: pip install 'emotion-ai[{extra}]'")


def load(module: str) -> ModuleType:
    """Imports a module.

    Raises:
        MissingExtraError: it needs a package of an extra that is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if problem := missing_extra(error):
            raise problem from error
        raise
