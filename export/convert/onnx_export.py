"""Any PyTorch module to an ONNX model with a dynamic batch. What torch cannot export is named by its layer."""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from emotion_ai.errors import ExportError

OPSET = 17
"""The oldest with layer normalisation as one operator."""

_BATCH = "N"


def export_onnx(
    module: nn.Module, examples: Sequence[Tensor], inputs: Sequence[str], outputs: Sequence[str], opset: int = OPSET
) -> onnx.ModelProto:
    """The module in evaluation mode as ONNX, with its weights.

    Args:
        module: takes the inputs in their order, and returns one tensor, or as many as there are `outputs`.
        examples: one batch of each input; the batch is the first axis, of length 2 or more.
        inputs: names of the inputs.
        outputs: names of the outputs.
        opset: version of ONNX's operators.

    Raises:
        ExportError: names the layer that torch cannot export, and the reason.
    """
    module = module.eval()
    try:
        return _export(module, tuple(examples), inputs, outputs, opset)
    except Exception as error:  # torch raises many kinds
        raise ExportError(f"{_failing_layer(module, examples, opset)}: {_reason(error)}") from error


def _export(
    module: nn.Module, examples: tuple[Any, ...], inputs: Sequence[str], outputs: Sequence[str], opset: int
) -> onnx.ModelProto:
    file: Any = io.BytesIO()  # accepted by this exporter, but not in its annotation
    with _quiet(), _own_symbolics(opset), torch.no_grad():
        torch.onnx.export(
            module,
            examples,
            file,
            dynamo=False,
            opset_version=opset,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: {0: _BATCH} for name in (*inputs, *outputs)},
        )
    model = onnx.load_from_string(file.getvalue())
    onnx.checker.check_model(model, full_check=True)
    return model


def _failing_layer(module: nn.Module, examples: Sequence[Tensor], opset: int) -> str:
    """The smallest module that cannot be exported by itself."""
    calls: dict[str, tuple[Any, ...]] = {}
    names = {part: name for name, part in module.named_modules() if name}

    def record(part: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        if isinstance(made, Tensor) and given and all(isinstance(value, Tensor) for value in given):
            calls.setdefault(names[part], given)

    hooks = [part.register_forward_hook(record) for part in names]
    try:
        with torch.no_grad():
            module(*examples)
    except Exception as error:
        return f"the network itself does not run ({_reason(error)})"
    finally:
        for hook in hooks:
            hook.remove()
    for name in sorted(calls, key=lambda name: len(list(module.get_submodule(name).modules()))):
        try:
            given = [f"input{place}" for place in range(len(calls[name]))]
            _export(module.get_submodule(name), calls[name], given, ["output"], opset)
        except Exception:
            return name
    return "the network itself"


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[0].partition(" Please feel free")[0].partition("  [Caused by")[0][:300]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings and its dumps of graphs."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # only this exporter needs no further package; it is deprecated
            yield
    finally:
        logging.disable(level)


@contextlib.contextmanager
def _own_symbolics(opset: int) -> Iterator[None]:
    """Operators that torch exports in a way that costs transposes, or not at all."""
    own: dict[str, Callable[..., Any]] = {
        "aten::group_norm": _group_norm,
        "aten::adaptive_avg_pool2d": _adaptive_avg_pool2d,
    }
    for name, symbolic in own.items():
        torch.onnx.register_custom_op_symbolic(name, symbolic, opset)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for name in own:
            torch.onnx.unregister_custom_op_symbolic(name, opset)  # type: ignore[attr-defined]


def _group_norm(g: Any, x: Any, groups: Any, weight: Any, bias: Any, eps: Any, cudnn: Any) -> Any:
    """Means over (C / groups, H, W), whose axes may lie in any order; torch itself flattens them."""
    from torch.onnx import symbolic_helper

    count, epsilon = symbolic_helper._get_const(groups, "i", "groups"), symbolic_helper._get_const(eps, "f", "eps")
    sizes = symbolic_helper._get_tensor_sizes(x)
    rank = symbolic_helper._get_tensor_rank(x)
    known = sizes is not None and None not in sizes[1:]
    if rank is None or not (known or count == 1):
        raise ValueError("group norm of an image whose size is not known")

    def constant(value: Any) -> Any:
        return g.op("Constant", value_t=torch.as_tensor(value))

    shape = [] if count == 1 else [-1, count, sizes[1] // count, *sizes[2:]]
    parts = g.op("Reshape", x, constant(shape)) if shape else x
    axes = list(range(2, len(shape))) if shape else list(range(1, rank))
    centred = g.op("Sub", parts, g.op("ReduceMean", parts, axes_i=axes))
    centred = g.op("Sub", centred, g.op("ReduceMean", centred, axes_i=axes))  # the first mean is rounded
    variance = g.op("ReduceMean", g.op("Mul", centred, centred), axes_i=axes)
    like = torch.float64 if x.type().scalarType() == "Double" else torch.float32
    scale = g.op("Sqrt", g.op("Add", variance, constant(torch.tensor(epsilon, dtype=like))))
    whole = g.op("Div", centred, scale)
    whole = g.op("Reshape", whole, constant([-1, *sizes[1:]])) if shape else whole
    each = constant([-1, *[1] * (rank - 2)])
    for value, operator in ((weight, "Mul"), (bias, "Add")):
        if not symbolic_helper._is_none(value):
            whole = g.op(operator, whole, g.op("Reshape", value, each))
    return whole


def _adaptive_avg_pool2d(g: Any, x: Any, size: Any) -> Any:
    """One average, windows of one size, or a matrix for each axis."""
    from torch.onnx import symbolic_helper

    wanted = symbolic_helper._get_const(size, "is", "output_size")
    sizes = symbolic_helper._get_tensor_sizes(x)
    if list(wanted) == [1, 1]:
        return g.op("GlobalAveragePool", x)
    if sizes is None or None in sizes[2:]:
        raise ValueError("adaptive pooling of an image whose size is not known")
    wanted = [old if new is None else new for old, new in zip(sizes[2:], wanted, strict=True)]
    if wanted == sizes[2:]:
        return g.op("Identity", x)
    if all(old % new == 0 for old, new in zip(sizes[2:], wanted, strict=True)):
        window = [old // new for old, new in zip(sizes[2:], wanted, strict=True)]
        return g.op("AveragePool", x, kernel_shape_i=window, strides_i=window)
    rows, columns = (_averages(*each) for each in zip(sizes[2:], wanted, strict=True))
    across = g.op("MatMul", x, g.op("Constant", value_t=torch.from_numpy(columns.T.copy())))
    return g.op("MatMul", g.op("Constant", value_t=torch.from_numpy(rows)), across)


def _averages(old: int, new: int) -> Any:
    """The windows of an adaptive pooling as a matrix (new, old)."""
    matrix = np.zeros((new, old), np.float32)
    for place in range(new):
        start, end = place * old // new, -(-(place + 1) * old // new)
        matrix[place, start:end] = 1 / (end - start)
    return matrix
