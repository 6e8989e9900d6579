"""Finds a module that chooses by the values of its images: a trace would keep one choice for all of them."""

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emotion_ai.errors import ExportError

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
