"""PyTorch, then TensorFlow: the other way round, the copies of LLVM that each brings along end the process."""

import torchvision  # noqa: F401 - brings PyTorch's compiler

from emotion_ai_export.registry.quiet_tensorflow import (
    OptimizeGraph,
    RewriterConfig,
    convert_variables_to_constants_v2,
    held_stderr,
    tf,
)

__all__ = ["OptimizeGraph", "RewriterConfig", "convert_variables_to_constants_v2", "held_stderr", "tf"]
