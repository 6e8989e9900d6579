"""Any PyTorch module to an ONNX model with a dynamic batch. What torch cannot export is named by its layer."""

import contextlib
import io
import logging
import os
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
    for name, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is None:
            raise ExportError(
                f"{name or 'the network itself'}: a batch norm without running statistics lets an answer depend on the "
                "other images of a batch; train it with track_running_stats=True"
            )
    try:
        return _export(module, tuple(examples), inputs, outputs, opset)
    except Exception as error:  # torch raises many kinds
        raise ExportError(f"{_failing_layer(module, examples, opset)}: {_reason(error)}") from error


def _export(
    module: nn.Module, examples: tuple[Any, ...], inputs: Sequence[str], outputs: Sequence[str], opset: int
) -> onnx.ModelProto:
    file: Any = io.BytesIO()  # accepted by this exporter, but not in its annotation
    with quiet(), _own_symbolics(opset), _in_simple_operators(), torch.no_grad():
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
def quiet() -> Iterator[None]:
    """Without the warnings and logs of PyTorch, and the graphs that the exporter's native code prints."""
    level, stdout = logging.root.manager.disable, os.dup(1)
    logging.disable(logging.CRITICAL)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # only this exporter needs no further package; it is deprecated
            yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
        logging.disable(level)


@contextlib.contextmanager
def _in_simple_operators() -> Iterator[None]:
    """Attention calls its parts, not one operator that the exporter lacks, and no layer branches on its shape."""
    enabled, local_response_norm = torch.backends.mha.get_fastpath_enabled(), nn.functional.local_response_norm
    torch.backends.mha.set_fastpath_enabled(False)
    nn.functional.local_response_norm = _local_response_norm
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
        nn.functional.local_response_norm = local_response_norm


def _local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """Sums of neighbouring channels; torch's own squeezes an axis of unknown length."""
    around, channels = [0, 0] * (input.ndim - 2) + [size // 2, (size - 1) // 2], input.shape[1]
    squares = nn.functional.pad(input.square(), around)
    total = sum((squares[:, first : first + channels] for first in range(1, size)), squares[:, :channels])
    return input / (k + alpha / size * total) ** beta


@contextlib.contextmanager
def _own_symbolics(opset: int) -> Iterator[None]:
    """Operators that torch exports in a way that costs transposes or precision, or not at all."""
    own: dict[str, Callable[..., Any]] = {
        "aten::group_norm": _group_norm,
        "aten::instance_norm": _instance_norm,
        "aten::adaptive_avg_pool1d": _adaptive_avg_pool,
        "aten::adaptive_avg_pool2d": _adaptive_avg_pool,
        "aten::adaptive_max_pool1d": _adaptive_max_pool,
        "aten::adaptive_max_pool2d": _adaptive_max_pool,
        "aten::_upsample_nearest_exact1d": _nearest_exact,
        "aten::_upsample_nearest_exact2d": _nearest_exact,
        "aten::pixel_unshuffle": _pixel_unshuffle,
        "aten::_convolution_mode": _convolution_mode,
        "aten::gelu": _gelu,
        "aten::log_sigmoid": _log_sigmoid,
        "aten::floor_divide": _floor_divide,
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

    count = symbolic_helper._get_const(groups, "i", "groups")
    sizes, rank = symbolic_helper._get_tensor_sizes(x), symbolic_helper._get_tensor_rank(x)
    known = sizes is not None and None not in sizes[1:]
    if rank is None or not (known or count == 1):
        raise ValueError("group norm of an image whose size is not known")
    shape = [] if count == 1 else [-1, count, sizes[1] // count, *sizes[2:]]
    parts = g.op("Reshape", x, _constant(g, shape)) if shape else x
    whole = _standardised(g, parts, list(range(2, len(shape)) if shape else range(1, rank)), eps)
    whole = g.op("Reshape", whole, _constant(g, [-1, *sizes[1:]])) if shape else whole
    return _per_channel(g, whole, rank, weight, bias)


def _instance_norm(
    g: Any,
    x: Any,
    weight: Any,
    bias: Any,
    mean: Any,
    variance: Any,
    of_images: Any,
    momentum: Any,
    eps: Any,
    cudnn: Any,
) -> Any:
    from torch.onnx import symbolic_helper, symbolic_opset9

    rank = symbolic_helper._get_tensor_rank(x)
    if rank is None:
        raise ValueError("instance norm of an image whose rank is not known")
    if symbolic_helper._get_const(of_images, "b", "use_input_stats"):
        return _per_channel(g, _standardised(g, x, list(range(2, rank)), eps), rank, weight, bias)
    return symbolic_opset9.batch_norm(g, x, weight, bias, mean, variance, False, momentum, eps, cudnn)


def _standardised(g: Any, x: Any, axes: list[int], eps: Any) -> Any:
    """With mean 0 and variance 1 over some axes, exact for flat images as well."""
    from torch.onnx import symbolic_helper

    centred = g.op("Sub", x, g.op("ReduceMean", x, axes_i=axes))
    centred = g.op("Sub", centred, g.op("ReduceMean", centred, axes_i=axes))  # the first mean is rounded
    variance = g.op("ReduceMean", g.op("Mul", centred, centred), axes_i=axes)
    like = torch.float64 if x.type().scalarType() == "Double" else torch.float32
    epsilon = torch.tensor(symbolic_helper._get_const(eps, "f", "eps"), dtype=like)
    return g.op("Div", centred, g.op("Sqrt", g.op("Add", variance, _constant(g, epsilon))))


def _per_channel(g: Any, x: Any, rank: int, weight: Any, bias: Any) -> Any:
    from torch.onnx import symbolic_helper

    each = _constant(g, [-1, *[1] * (rank - 2)])
    for value, operator in ((weight, "Mul"), (bias, "Add")):
        if not symbolic_helper._is_none(value):
            x = g.op(operator, x, g.op("Reshape", value, each))
    return x


def _constant(g: Any, value: Any) -> Any:
    return g.op("Constant", value_t=torch.as_tensor(value))


def _pooled_sizes(x: Any, size: Any) -> tuple[list[int], list[int]]:
    """Lengths of the axes before and after an adaptive pooling."""
    from torch.onnx import symbolic_helper

    wanted, sizes = symbolic_helper._get_const(size, "is", "output_size"), symbolic_helper._get_tensor_sizes(x)
    if sizes is None or None in sizes[2:]:
        raise ValueError("adaptive pooling of an image whose size is not known")
    return sizes[2:], [old if new is None else new for old, new in zip(sizes[2:], wanted, strict=True)]


def _adaptive_avg_pool(g: Any, x: Any, size: Any) -> Any:
    """One average, windows of one size, or a matrix for each axis."""
    from torch.onnx import symbolic_helper

    if set(symbolic_helper._get_const(size, "is", "output_size")) == {1}:
        return g.op("GlobalAveragePool", x)
    sizes, wanted = _pooled_sizes(x, size)
    if wanted == sizes:
        return g.op("Identity", x)
    if all(old % new == 0 for old, new in zip(sizes, wanted, strict=True)):
        window = [old // new for old, new in zip(sizes, wanted, strict=True)]
        return g.op("AveragePool", x, kernel_shape_i=window, strides_i=window)
    *rows, columns = (torch.from_numpy(_averages(*each)) for each in zip(sizes, wanted, strict=True))
    x = g.op("MatMul", x, _constant(g, columns.T.contiguous()))
    return g.op("MatMul", _constant(g, rows[0]), x) if rows else x


def _adaptive_max_pool(g: Any, x: Any, size: Any) -> Any:
    """One maximum, windows of one size, or a maximum of a slice for each place of each axis; without indices."""
    sizes, wanted = _pooled_sizes(x, size)
    if all(old % new == 0 for old, new in zip(sizes, wanted, strict=True)):
        window = [old // new for old, new in zip(sizes, wanted, strict=True)]
        return g.op("MaxPool", x, kernel_shape_i=window, strides_i=window), None
    for axis, (old, new) in enumerate(zip(sizes, wanted, strict=True), 2):
        parts = [g.op("Slice", x, *(_constant(g, [end]) for end in (*ends, axis))) for ends in _windows(old, new)]
        x = g.op("Concat", *(g.op("ReduceMax", part, axes_i=[axis]) for part in parts), axis_i=axis)
    return x, None


def _nearest_exact(g: Any, x: Any, size: Any, *scales: Any) -> Any:
    """The source at a pixel's centre."""
    from torch.onnx import symbolic_helper

    sizes = symbolic_helper._get_tensor_sizes(x)
    how = {
        "mode_s": "nearest",
        "coordinate_transformation_mode_s": "half_pixel",
        "nearest_mode_s": "round_prefer_ceil",
    }
    if sizes is None or None in sizes[1:]:
        raise ValueError("a resize of an image whose size is not known")
    none = g.op("Constant", value_t=torch.tensor([], dtype=torch.float32))
    factors = [] if not scales or symbolic_helper._is_none(scales[0]) else scales
    if symbolic_helper._is_none(size):
        given = symbolic_helper._get_const(factors[0], "fs", "scale_factors")
        return g.op("Resize", x, none, _constant(g, torch.tensor([1.0, 1.0, *given])), **how)
    wanted = symbolic_helper._get_const(size, "is", "output_size")
    batch = g.op("Slice", g.op("Shape", x), _constant(g, [0]), _constant(g, [1]))
    whole = g.op("Concat", batch, _constant(g, [sizes[1], *wanted]), axis_i=0)
    return g.op("Resize", x, none, none, whole, **how)


def _pixel_unshuffle(g: Any, x: Any, factor: Any) -> Any:
    """Space to depth, which numbers channels by place first, then a choice of channels."""
    from torch.onnx import symbolic_helper

    block, sizes = symbolic_helper._get_const(factor, "i", "factor"), symbolic_helper._get_tensor_sizes(x)
    if sizes is None or sizes[1] is None:
        raise ValueError("pixel unshuffle of an image whose channels are not known")
    places = torch.arange(sizes[1] * block**2).reshape(block**2, sizes[1]).T.reshape(-1)
    return g.op("Gather", g.op("SpaceToDepth", x, blocksize_i=block), _constant(g, places), axis_i=1)


def _convolution_mode(
    g: Any, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: Any
) -> Any:
    """padding="same" as numbers; ONNX Runtime has no `auto_pad` with a dilation."""
    from torch.onnx import symbolic_helper

    size = symbolic_helper._get_tensor_sizes(weight)[2:]
    places = [symbolic_helper._get_const(each, "is", "convolution") for each in (stride, dilation)]
    same = symbolic_helper._get_const(padding, "s", "padding") == "same"
    around = [d * (k - 1) if same else 0 for k, d in zip(size, places[1], strict=True)]
    how = {
        "kernel_shape_i": size,
        "strides_i": places[0],
        "dilations_i": places[1],
        "pads_i": [total // 2 for total in around] + [total - total // 2 for total in around],
        "group_i": symbolic_helper._get_const(groups, "i", "groups"),
    }
    return g.op("Conv", x, weight, *([] if symbolic_helper._is_none(bias) else [bias]), **how)


def _gelu(g: Any, x: Any, approximate: Any) -> Any:
    """0.5 x (1 + erf(x / sqrt 2)), in the order that ONNX Runtime and LiteRT know as one operator."""
    from torch.onnx import symbolic_helper, symbolic_opset9

    if symbolic_helper._get_const(approximate, "s", "approximate") != "none":
        return symbolic_opset9.gelu(g, x, approximate)
    curve = g.op("Erf", g.op("Div", x, _constant(g, 2**0.5)))
    return g.op("Mul", g.op("Mul", x, _constant(g, 0.5)), g.op("Add", curve, _constant(g, 1.0)))


def _log_sigmoid(g: Any, x: Any) -> Any:
    """Finite for all values; torch itself takes the logarithm of a sigmoid that may be 0."""
    return g.op("Neg", g.op("Softplus", g.op("Neg", x)))


def _floor_divide(g: Any, x: Any, divisor: Any) -> Any:
    """Rounded down, as x // y is; torch itself rounds towards 0."""
    from torch.onnx import symbolic_opset10

    return symbolic_opset10._floor_divide(g, x, divisor)


def _windows(old: int, new: int) -> list[tuple[int, int]]:
    """The windows of an adaptive pooling: start and end."""
    return [(place * old // new, -(-(place + 1) * old // new)) for place in range(new)]


def _averages(old: int, new: int) -> Any:
    """The windows of an adaptive pooling as a matrix (new, old)."""
    matrix = np.zeros((new, old), np.float32)
    for place, (start, end) in enumerate(_windows(old, new)):
        matrix[place, start:end] = 1 / (end - start)
    return matrix
