"""PyTorch, then TensorFlow. In the other order, their copies of LLVM crash the process."""

import torchvision  # noqa: F401 - loads PyTorch's compiler

from emotion_ai_export.registry.quiet_tensorflow import (
    OptimizeGraph,
    RewriterConfig,
    convert_variables_to_constants_v2,
    held_stderr,
    tf,
    tf_function,
)

tf.config.experimental.enable_tensor_float_32_execution(False)  # a GPU's TF32 is too coarse for a proof

__all__ = ["OptimizeGraph", "RewriterConfig", "convert_variables_to_constants_v2", "held_stderr", "tf", "tf_function"]
