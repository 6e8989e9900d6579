"""Lets onnx-tf 1.10.0 (2022, its last release) import with current packages.

It needs `onnx.mapping`, removed in onnx 1.19 (onnx/onnx-tensorflow pull request 1083). It also imports
tensorflow-addons and tensorflow-probability, which do not import with Keras 3, for recurrent layers, Hardmax and
Bernoulli. The tables are rebuilt from `onnx.helper`; the two packages are replaced by
stubs during the import.
"""

import sys
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any

from emotion_ai.errors import ExportError, MissingExtraError

INSTALL = "pip install --no-deps onnx-tf==1.10.0"

_ABSENT = ("tensorflow_addons", "tensorflow_probability")


@cache
def load_onnx_tf() -> Any:
    """The module `onnx_tf.backend`.

    Raises:
        MissingExtraError: onnx-tf is not installed.
        ExportError: it does not import even with the stubs.
    """
    import onnx.helper

    if "onnx.mapping" not in sys.modules:
        mapping = _mapping()
        sys.modules["onnx.mapping"] = mapping
        onnx.mapping = onnx.helper.mapping = mapping  # type: ignore[attr-defined]
    before = {name: sys.modules.get(name) for name in _ABSENT}
    for name in _ABSENT:
        sys.modules[name] = _stub(name)
    try:
        import onnx_tf.backend
    except ModuleNotFoundError as error:
        if error.name == "onnx_tf":  # its metadata asks for tensorflow-addons, which has no wheel for Python 3.12
            raise MissingExtraError(f"this needs onnx-tf: {INSTALL}") from error
        raise MissingExtraError(f"onnx-tf needs {error.name}: pip install 'emotion-ai[export]'") from error
    except Exception as error:
        raise ExportError(
            f"onnx-tf does not import with the installed packages ({error}); install with constraints.txt"
        ) from error
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    return onnx_tf.backend


def _stub(name: str) -> ModuleType:
    """A module with the two names that onnx-tf uses while it is imported."""

    def absent(*_: Any, **__: Any) -> Any:
        raise ExportError(f"this network needs {name}, which does not work with current packages")

    module = ModuleType(name)
    module.seq2seq = SimpleNamespace(hardmax=absent)  # type: ignore[attr-defined]
    module.distributions = SimpleNamespace(Bernoulli=absent)  # type: ignore[attr-defined]
    return module


def _mapping() -> ModuleType:
    """The former `onnx.mapping`: tables between NumPy's types, ONNX's, and the fields that store them."""
    from onnx import TensorProto, helper

    types = [number for number in TensorProto.DataType.values() if number != TensorProto.UNDEFINED]
    mapping = ModuleType("onnx.mapping")
    numpy_types = {number: helper.tensor_dtype_to_np_dtype(number) for number in types}
    storage = {number: helper.tensor_dtype_to_storage_tensor_dtype(number) for number in types}
    mapping.TENSOR_TYPE_TO_NP_TYPE = numpy_types  # type: ignore[attr-defined]
    mapping.TENSOR_TYPE_TO_STORAGE_TENSOR_TYPE = storage  # type: ignore[attr-defined]
    # the first type wins: later ones (bfloat16, float8) share a NumPy type with it in older tables
    mapping.NP_TYPE_TO_TENSOR_TYPE = {numpy_types[n]: n for n in reversed(types)}  # type: ignore[attr-defined]
    mapping.STORAGE_TENSOR_TYPE_TO_FIELD = {  # type: ignore[attr-defined]
        stored: helper.tensor_dtype_to_field(number) for number, stored in storage.items()
    }
    return mapping
