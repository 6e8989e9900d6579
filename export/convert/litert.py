"""LiteRT files of a network: float32, float16 and int8, made by TensorFlow's own converter.

An int8 file has weights in 8 bits with a scale for each channel, and activations in 8 bits whose ranges come from the
calibration images. The last layer before each output and all after it stay in float32: in 8 bits, the softmax over a
heatmap moves points by several pixels. Inputs and outputs are float32 in all files.
"""

import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from emotion_ai.errors import ConfigError, ExportError
from emotion_ai_export.convert.frameworks import held_stderr, tf

LiteRTKind = Literal["float32", "float16", "int8"]

Arrays = dict[str, NDArray[Any]]

_LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL", "TRANSPOSE_CONV")


def litert_kinds(given: Sequence[str], option: str) -> tuple[LiteRTKind, ...]:
    """The kinds of LiteRT files that an option names, without repetitions.

    Raises:
        ConfigError: another word.
    """
    kinds = get_args(LiteRTKind)
    for each in given:
        if each not in kinds:
            raise ConfigError(f"{option}: unknown kind of LiteRT file {each!r}; choose from {', '.join(kinds)}")
    return tuple(kind for kind in kinds if kind in given)


def to_litert(function: Any, kind: LiteRTKind, calibration: Iterable[Mapping[str, NDArray[np.float32]]] = ()) -> bytes:
    """A graph as a LiteRT file.

    Args:
        function: a concrete function of float32 images by name, with a dynamic batch.
        kind: of its numbers.
        calibration: inputs by name, a batch of one each; for int8.

    Raises:
        ExportError: TensorFlow cannot convert the graph.
    """
    images, holder = list(calibration), tf.Module()
    holder.function = function  # whose names the file keeps as its signature

    def converter() -> Any:
        made = tf.lite.TFLiteConverter.from_concrete_functions([function], holder)
        if kind != "float32":
            made.optimizations = [tf.lite.Optimize.DEFAULT]
        if kind == "float16":
            made.target_spec.supported_types = [tf.float16]
        if kind == "int8":
            made.representative_dataset = lambda: iter(images)
        return made

    with warnings.catch_warnings(action="ignore"), held_stderr():  # notes of an interpreter that TensorFlow uses
        try:
            if kind != "int8":
                return bytes(converter().convert())
            plain = tf.lite.TFLiteConverter.from_concrete_functions([function], holder)
            options = tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=_last_layers(plain.convert()))
            debugger = tf.lite.experimental.QuantizationDebugger(
                converter=converter(), debug_dataset=lambda: iter(images), debug_options=options
            )
            return bytes(debugger.get_nondebug_quantized_model())
        except Exception as error:  # the converter raises many kinds
            failure = error
    reason = next((line.strip() for line in str(failure).splitlines() if line.strip()), type(failure).__name__)
    if "debug mode" in reason:  # nothing was quantised
        reason = "no layer lies before the last one with weights, which stays in float32; leave int8 out"
    raise ExportError(f"LiteRT {kind}: TensorFlow cannot convert the graph: {reason[:300]}") from failure


def run_litert(content: bytes, batches: Sequence[Mapping[str, NDArray[Any]]], name: str) -> list[Arrays]:
    """The outputs of a LiteRT file by name, for several batches, computed in a process of its own.

    Args:
        content: of the file.
        batches: inputs by name.
        name: of the file, for errors.

    Raises:
        ExportError: LiteRT rejects the file, or crashes.
    """
    with tempfile.TemporaryDirectory(prefix="emotion-ai-litert-") as place:
        folder = Path(place)
        (folder / "model.tflite").write_bytes(content)
        given = {f"{n}/{key}": values for n, batch in enumerate(batches) for key, values in batch.items()}
        np.savez(folder / "inputs.npz", **given)  # type: ignore[arg-type]
        command = [sys.executable, "-m", "emotion_ai_export.convert.litert_run", place]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["no error output"]
            reason = (
                f"crashes ({lines[-1][:300]}); leave it out" if done.returncode < 0 else f"fails: {lines[-1][:300]}"
            )
            raise ExportError(f"LiteRT {name}: the interpreter {reason}")
        found: list[Arrays] = [{} for _ in batches]
        with np.load(folder / "outputs.npz") as arrays:
            for key in arrays:
                number, _, output = key.partition("/")
                found[int(number)][output] = arrays[key]
    return found


def _last_layers(content: bytes) -> list[str]:
    """Names of the tensors from the last layer with weights before each output on."""
    from tensorflow.lite.python import schema_py_generated as schema  # after `frameworks`
    from tensorflow.lite.tools import flatbuffer_utils

    layers = {getattr(schema.BuiltinOperator, name) for name in _LAYERS}
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    graph = model.subgraphs[0]
    made_by = {output: operator for operator in graph.operators for output in operator.outputs}
    found, ahead = dict[int, str](), list(graph.outputs)
    while ahead:
        tensor = ahead.pop()
        if tensor in found or tensor not in made_by:
            continue
        operator = made_by[tensor]
        found |= {output: graph.tensors[output].name.decode() for output in operator.outputs}
        code = model.operatorCodes[operator.opcodeIndex]
        if max(code.builtinCode, code.deprecatedBuiltinCode) not in layers:
            ahead.extend(operator.inputs)
    return list(found.values())
