"""One version of a model in memory."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_ai.client import protos
from emotion_ai.published import WARMUP_FILE
from emotion_ai_export.registry.quiet_tensorflow import tf
from emotion_ai_export.registry.warmup import requests
from emotion_ai_export.serving.embedded.errors import ServingError
from emotion_ai_export.serving.embedded.limits import Limits

_CODES = protos.GetModelStatusResponse.DESCRIPTOR.file.enum_types_by_name["Code"].values_by_number
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
            described = tf.compat.v1.saved_model.load(session, ["serve"], str(folder)).signature_def
        self.version, self.metadata = version, protos.SignatureDefMap()
        for name, signature in described.items():
            self.metadata.signature_def[name].MergeFromString(signature.SerializeToString())
        self._signatures = dict(self.metadata.signature_def)  # a lookup in a protobuf map fails on lone surrogates
        self._calls: dict[str, Callable[..., Sequence[Any]]] = {}
        for name, signature in self._signatures.items():
            feed, fetch = ([info.name for info in part.values()] for part in (signature.inputs, signature.outputs))
            if feed:  # unlike session.run, a callable leaves shape checks to the operations, as the server does
                limit = RunOptions(timeout_in_ms=int(1000 * _RUN_SECONDS))
                options = CallableOptions(feed=feed, fetch=fetch, run_options=limit)
                self._calls[name] = session._make_callable_from_options(options)
        for name, tensors in requests(folder / WARMUP_FILE) if (folder / WARMUP_FILE).is_file() else ():
            self.run(name, tensors)

    def dtypes(self, signature: str) -> dict[str, np.dtype[Any]]:
        """The inputs' dtypes by name; object stands for strings.

        Raises:
            ServingError: no such signature.
        """
        if signature not in self._signatures:
            raise ServingError(f'Serving signature name: "{signature}" not found in signature def')
        inputs = self._signatures[signature].inputs
        return {name: np.dtype(tf.as_dtype(inputs[name].dtype).as_numpy_dtype) for name in sorted(inputs)}

    def run(
        self, signature: str, tensors: dict[str, NDArray[Any]], output_names: Sequence[str] = ()
    ) -> dict[str, NDArray[Any]]:
        """The outputs by name.

        Args:
            signature: its name; empty for the default one.
            tensors: inputs by name.
            output_names: the outputs to return; all if empty.

        Raises:
            ServingError: unknown signature or output, or inputs that the signature or the model rejects.
        """
        signature = signature or "serving_default"
        if signature not in self._calls:
            raise ServingError(f'Serving signature key "{signature}" not found.', "FAILED_PRECONDITION")
        dtypes, definition = self.dtypes(signature), self._signatures[signature]
        if tensors.keys() != dtypes.keys():
            raise ServingError(f"Inputs expected: {','.join(dtypes)}; found in request {{{','.join(sorted(tensors))}}}")
        for alias, dtype in dtypes.items():
            if tensors[alias].dtype != dtype:
                raise ServingError(f"Expects {alias} to be {dtype} but {tensors[alias].dtype} is provided")
        for alias in output_names:
            if alias not in set(definition.outputs):
                raise ServingError(f"output tensor alias not found in signature: {alias}")
        try:
            values = self._calls[signature](*(tensors[name] for name in definition.inputs))
        except tf.errors.OpError as error:
            raise ServingError(error.message, error_code(error)) from error
        outputs = dict(zip(definition.outputs, map(np.asarray, values), strict=True))
        return {alias: outputs[alias] for alias in output_names or sorted(outputs)}


def error_code(error: Exception) -> str:
    """The name of its status code."""
    if isinstance(error, ServingError):
        return error.code
    return str(_CODES[getattr(error, "error_code", tf.errors.UNKNOWN)].name)
