"""Finds a module that chooses by the values of its images: a trace would keep one choice for all of them."""

import traceback
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from emotion_ai.errors import ExportError

_TORCH = Path(torch.__file__).parent


def require_graph(module: nn.Module, examples: Sequence[Tensor]) -> None:
    """Runs the module on images without values.

    Args:
        module: in evaluation mode.
        examples: a batch of each input, float32 (N, C, H, W).

    Raises:
        ExportError: it asks for a value, as `if images.max() > 1` does; names the line.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with torch.no_grad():
            module(*(mode.from_tensor(each) for each in examples))
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [line for line in frames if _TORCH not in Path(line.filename).parents]
        where = f" ({Path(lines[-1].filename).name}, line {lines[-1].lineno})" if lines else ""
        raise ExportError(
            f"the module chooses by the values of its images{where}, and a graph keeps one choice; use torch.where"
        ) from error
    except Exception:  # an operator that does not run without values; the proof compares what it does
        return
