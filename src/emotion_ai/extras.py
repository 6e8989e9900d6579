"""Clear errors for packages of extras that are not installed."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from emotion_ai.errors import MissingExtraError

_EXTRAS = {
    "av": "video",
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
    "pyarrow": "record",
    "ray": "score",
    "google": "grpc",
    "grpc": "grpc",
    "gradio": "web",
    "onnx": "export",
    "onnx_tf": "export",
    "onnxruntime": "export",
    "optuna": "sweep",
    "starlette": "serve",
    "tensorflow": "serve",
    "timm": "timm",
    "uvicorn": "serve",
}


@contextmanager
def optional_imports(extra: str | None = None) -> Iterator[None]:
    """Turns a failed import of an extra's package into a `MissingExtraError` that names the extra to install.

    Args:
        extra: that has all that is imported; by default the usual one of the package.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        usual = _EXTRAS.get((error.name or "").partition(".")[0])
        if usual is None:
            raise
        raise MissingExtraError(f"this needs {error.name}: pip install 'emotion-ai[{extra or usual}]'") from error


def load(module: str) -> ModuleType:
    """Imports a module by name.

    Raises:
        MissingExtraError: it needs a package of an extra that is not installed.
    """
    with optional_imports():
        return importlib.import_module(module)
