"""A test double of TensorFlow Serving's model management: loading, retries, labels and reloads as in 2.20's source.

It takes the flags of `tensorflow_model_server` and runs no graphs: a prediction is the number of the version that
answers, in every element of every output, or as a class. Periods are those of the real server times TFS_DOUBLE_SCALE.
"""

import os
import sys
from pathlib import Path

SCALE = float(os.environ.get("TFS_DOUBLE_SCALE", 1.0))
LOAD_SECONDS, PREDICT_SECONDS = (float(os.environ.get(f"TFS_DOUBLE_{name}_SECONDS", 0)) for name in ("LOAD", "PREDICT"))

RELOAD = os.environ.get("TFS_DOUBLE_RELOAD") == "1"  # each look at the folders tries failed versions again


class StatusError(Exception):
    """An error with its gRPC code."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def executable(folder: Path) -> Path:
    """A file in `folder` to be run like `tensorflow_model_server`."""
    root = Path(__file__).parents[3]
    file = folder / "tensorflow_model_server"
    file.write_text(f'#!/bin/sh\nPYTHONPATH="{root}" exec "{sys.executable}" -m tests.export.serving_double "$@"\n')
    file.chmod(0o755)
    return file
