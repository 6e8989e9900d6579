"""Finds a module that chooses by its images' values or number: a trace would keep one choice for all of them."""

import traceback
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from emotion_ai.errors import ExportError
from emotion_ai_export.convert.onnx_export import quiet

_TORCH = Path(torch.__file__).parent
_ASK = {
    *(Tensor.__bool__, Tensor.__float__, Tensor.__int__, Tensor.__index__, Tensor.__array__),
    *(Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.is_nonzero, torch.is_nonzero),
    *(Tensor.equal, torch.equal, Tensor.allclose, torch.allclose),
}


class _AskedError(Exception):
    """A value became a number of Python."""


class _Watched(Tensor):
    """A tensor that makes all that is computed from it one of its kind, and gives no value to Python."""

    @classmethod
    def __torch_function__(cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _ASK:
            raise _AskedError
        return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]


def require_graph(module: nn.Module, examples: Sequence[Tensor]) -> None:
    """Runs the module on images whose values Python must not see.

    Args:
        module: in evaluation mode.
        examples: a batch of each input, float32 (N, C, H, W).

    Raises:
        ExportError: it asks for a value, as `if images.max() > 1` does; names the line.
    """
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            module(*(each.clone().as_subclass(_Watched) for each in examples))
    except _AskedError as error:
        frames = traceback.extract_tb(error.__traceback__)
        here = [line for line in frames if _TORCH not in Path(line.filename).parents and line.filename != __file__]
        where = f" ({Path(here[-1].filename).name}, line {here[-1].lineno})" if here else ""
        raise ExportError(
            f"the module chooses by the values of its images{where}, and a graph keeps one choice; use torch.where"
        ) from error
    except Exception:  # an operator that takes no watched tensors; the proof compares what it does
        return


def other_batches(module: nn.Module, examples: Sequence[Tensor]) -> dict[int, str]:
    """Numbers of images for which the module chooses otherwise than for the examples, as `if len(images) > 8` does.

    Args:
        module: in evaluation mode.
        examples: a batch of each input (N, C, H, W), N > 1.

    Returns:
        Numbers from 2 to 256 with the line of the choice: one for each way found, at most 8; or some, if the module
        takes N as a Python integer. Empty if there is no choice, or if the module does not run with a symbol for N.
    """
    found: dict[int, str] = {}
    batches = [len(examples[0])]
    for batch in batches:
        rows = torch.arange(batch) % len(examples[0])
        same_way = set(range(2, 257))
        for asked, place in _asked_of_size(module, [each[rows] for each in examples]):
            otherwise = {n for n in same_way if asked.subs(dict.fromkeys(asked.free_symbols, n)) == False}  # noqa: E712 - SymPy's
            same_way -= otherwise
            if same_way == {batch}:  # len(images) made N a number; nothing is left of the symbol
                found |= dict.fromkeys((9, 17, 33, 65, 129), place)
            elif otherwise and otherwise.isdisjoint(batches) and len(found) < 8:
                found[min(otherwise)] = place
                batches.append(min(otherwise))
    return found


def _asked_of_size(module: nn.Module, images: Sequence[Tensor]) -> list[tuple[Any, str]]:
    """What the module's own lines ask of N, each true for these images, by running it with a symbol for N."""
    sizes = ShapeEnv()
    fakes = FakeTensorMode(shape_env=sizes, allow_non_fake_inputs=True)
    shape: Any = StatelessSymbolicContext(dynamic_sizes=[DimDynamic.DYNAMIC] + 3 * [DimDynamic.STATIC])
    try:
        state = chain(module.named_parameters(), module.named_buffers())
        fixed: dict[str, Tensor] = {name: fakes.from_tensor(values, static_shapes=True) for name, values in state}
        symbolic = tuple(
            fakes.from_tensor(each, symbolic_context=shape, source=ConstantSource(f"images{number}"))
            for number, each in enumerate(images)
        )
        with quiet(), torch.no_grad(), torch.compiler.set_stance("force_eager"), fakes, enable_python_dispatcher():
            torch.func.functional_call(module, fixed, symbolic, tie_weights=False)  # else it leaves shared modules fake
    except Exception:  # an operator that takes no symbols; what the module asked before counts
        pass
    places = [(guard.expr, guard.sloc.framework_loc) for guard in sizes.guards]
    return [
        (asked, f"{Path(place.filename).name}, line {place.lineno}")
        for asked, place in places
        if isinstance(place, traceback.FrameSummary) and _TORCH not in Path(place.filename).parents
    ]
