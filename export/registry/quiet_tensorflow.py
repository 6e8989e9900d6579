"""TensorFlow without its start-up notices. With PyTorch in the same process, import `convert.frameworks` instead."""

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@contextmanager
def held_stderr() -> Iterator[None]:
    """Holds back what native code writes to stderr, and shows it only if the block raises.

    No setting silences TensorFlow before its logger is initialised.
    """
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
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    tf.config.list_physical_devices()  # detecting devices prints the rest of the notices

tf.get_logger().setLevel("ERROR")
logging.getLogger("absl").setLevel(logging.ERROR)


def tf_function(*input_signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """`tf.function` with an input signature, as a typed decorator."""
    decorator: Callable[[Callable[..., Any]], Any] = tf.function(input_signature=list(input_signature))
    return decorator


__all__ = ["convert_variables_to_constants_v2", "held_stderr", "tf", "tf_function"]
