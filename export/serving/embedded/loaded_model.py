"""One version of a model in memory."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.json_format import MessageToDict
from numpy.typing import NDArray

from emotion_ai.published import WARMUP_FILE
from emotion_ai_export.registry.quiet_tensorflow import tf
from emotion_ai_export.registry.warmup import requests
from emotion_ai_export.serving.embedded.errors import TYPE_NAMES, ServingError
from emotion_ai_export.serving.embedded.limits import Limits

_RUN_SECONDS = Limits().run


class LoadedModel:
    """A loaded and warmed-up SavedModel.

    A TF1 session runs it, as in TensorFlow Serving, so the same operations raise the same errors. The session is never
    closed explicitly: it is freed with this object, after the last request that uses it.

    Args:
        folder: a SavedModel.
        version: its number, for responses.

    Raises:
        ServingError, tf.errors.OpError: the SavedModel cannot be loaded, or a warm-up request fails.
    """

    def __init__(self, folder: Path, version: int = 0) -> None:
        from tensorflow.core.protobuf.config_pb2 import CallableOptions, RunOptions

        if not (folder / "saved_model.pb").is_file():
            raise ServingError(
                "Specified file path does not appear to contain a SavedModel bundle (should have a file called "
                f"`saved_model.pb`)\nSpecified file path: {folder}",
                "NOT_FOUND",
            )
        threads = int(os.environ.get("TF_NUM_INTRAOP_THREADS", 0)) or os.cpu_count() or 1
        config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=2)
        graph = tf.Graph()
        with graph.as_default():
            session = tf.compat.v1.Session(graph=graph, config=config)
            self.signatures = tf.compat.v1.saved_model.load(session, ["serve"], str(folder)).signature_def
        self.version = version
        self._calls: dict[str, Callable[..., Sequence[Any]]] = {}
        for name, signature in self.signatures.items():
            feed, fetch = ([info.name for info in part.values()] for part in (signature.inputs, signature.outputs))
            if feed:  # unlike session.run, a callable leaves shape checks to the operations, as the server does
                limit = RunOptions(timeout_in_ms=int(1000 * _RUN_SECONDS))
                options = CallableOptions(feed=feed, fetch=fetch, run_options=limit)
                self._calls[name] = session._make_callable_from_options(options)
        self._warm_up(folder / WARMUP_FILE)

    def dtypes(self, signature: str) -> dict[str, np.dtype[Any]]:
        """The inputs' dtypes by name; object stands for strings.

        Raises:
            ServingError: no such signature.
        """
        if signature not in set(self.signatures):  # a lookup in the protobuf map fails on lone surrogates
            raise ServingError(f'Serving signature name: "{signature}" not found in signature def')
        inputs = self.signatures[signature].inputs
        return {name: np.dtype(tf.as_dtype(inputs[name].dtype).as_numpy_dtype) for name in sorted(inputs)}

    def run(self, signature: str, tensors: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The outputs by name.

        Raises:
            ServingError: the model rejects these tensors.
        """
        definition = self.signatures[signature]
        try:
            values = self._calls[signature](*(tensors[name] for name in definition.inputs))
        except tf.errors.OpError as error:
            raise ServingError(error.message, error_code(error)) from error
        return dict(zip(definition.outputs, map(np.asarray, values), strict=True))

    def call(
        self, signature: str, tensors: dict[str, NDArray[Any]], output_names: Sequence[str] = ()
    ) -> dict[str, NDArray[Any]]:
        """`run` with the checks of gRPC and warm-up requests; an empty signature means the default one.

        Args:
            signature: its name.
            tensors: inputs by name.
            output_names: the outputs to return; all if empty.

        Raises:
            ServingError: unknown signature or output, or inputs that do not match the signature.
        """
        signature = signature or "serving_default"
        if signature not in set(self.signatures):
            raise ServingError(f'Serving signature key "{signature}" not found.', "FAILED_PRECONDITION")
        dtypes = self.dtypes(signature)
        if tensors.keys() != dtypes.keys():
            raise ServingError(f"Inputs expected: {','.join(dtypes)}; found in request {{{','.join(sorted(tensors))}}}")
        for alias, dtype in dtypes.items():
            if tensors[alias].dtype != dtype:
                expected, got = (TYPE_NAMES.get(kind.name, kind.name) for kind in (dtype, tensors[alias].dtype))
                raise ServingError(f"Expects {alias} to be {expected} but {got} is provided")
        for alias in output_names:
            if alias not in set(self.signatures[signature].outputs):
                raise ServingError(f"output tensor alias not found in signature: {alias}")
        outputs = self.run(signature, tensors)
        return {alias: outputs[alias] for alias in output_names or sorted(outputs)}

    def metadata(self) -> dict[str, Any]:
        """All signatures, in the JSON of TensorFlow Serving's metadata."""
        options = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
        described = {name: MessageToDict(signature, **options) for name, signature in self.signatures.items()}
        return {"signature_def": {"signature_def": described}}

    def _warm_up(self, file: Path) -> None:
        for signature, tensors in requests(file) if file.is_file() else ():
            self.call(signature, tensors)


def error_code(error: Exception) -> str:
    """The status code's name: OutOfRangeError is OUT_OF_RANGE."""
    if isinstance(error, ServingError):
        return error.code
    if isinstance(error, tf.errors.OpError):
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__.removesuffix("Error")).upper()
    return "UNKNOWN"
