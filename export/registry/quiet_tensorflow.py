"""TensorFlow without its start-up notices. Where PyTorch is needed too, import `frameworks` first."""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@contextmanager
def held_stderr() -> Iterator[None]:
    """Holds back what native code writes to stderr, which no setting silences before its logger is up; shows it after
    a failure."""
    with tempfile.TemporaryFile() as held:
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)


with held_stderr():
    import tensorflow as tf
    from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
    from tensorflow.python.grappler.tf_optimizer import OptimizeGraph

    tf.config.list_physical_devices()  # looking for devices gives the rest of the notices

tf.get_logger().setLevel("ERROR")
logging.getLogger("absl").setLevel(logging.ERROR)

__all__ = ["OptimizeGraph", "RewriterConfig", "convert_variables_to_constants_v2", "held_stderr", "tf"]
