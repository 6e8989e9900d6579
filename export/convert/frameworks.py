"""PyTorch, then TensorFlow. In the other order, their copies of LLVM crash the process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torchvision  # noqa: F401 - loads PyTorch's compiler

from emotion_ai.errors import ExportError
from emotion_ai_export.registry.quiet_tensorflow import (
    convert_variables_to_constants_v2,
    held_stderr,
    tf,
    tf_function,
)

tf.config.experimental.enable_tensor_float_32_execution(False)  # a GPU's TF32 is too coarse for a proof

__all__ = [
    "convert_variables_to_constants_v2",
    "errors_in_one_line",
    "held_stderr",
    "tf",
    "tf_function",
]


@contextmanager
def errors_in_one_line(base: Path) -> Iterator[None]:
    """Raises TensorFlow's errors, such as that of a full disk, as an ExportError; and ours without its traceback."""
    try:
        yield
    except tf.errors.OpError as error:
        lines = [line for line in str(error.message).splitlines() if line.strip()] or [type(error).__name__]
        full = "No space left on device" in str(error)
        reason = "No space left on device; free some space" if full else f"TensorFlow failed: {lines[0]}"
        raise ExportError(f"{base}: {reason}; nothing was published") from error
    except ExportError as error:
        if (text := str(error)).startswith("in user code"):  # TensorFlow wraps what is raised in its functions
            raise ExportError(" ".join(text.rpartition("ExportError: ")[2].split())) from error
        raise
