"""The gate of LiteRT files of face networks, each kind with its own tolerance and least agreement of decisions."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_ai.client.checks import Outputs
from emotion_ai.contract import CROP_SIZE, IMAGES_INPUT, Task
from emotion_ai_export.convert.frameworks import tf, tf_function
from emotion_ai_export.convert.graph import NetworkGraph
from emotion_ai_export.convert.litert import LiteRTKind, run_litert, to_litert
from emotion_ai_export.convert.parity import (
    DECIMALS,
    IN_PIXELS,
    Comparison,
    compare_network,
    export_tolerance,
)
from emotion_ai_export.convert.parity_cases import ParityCase

FACES = ("real", "synthetic")


@dataclass(frozen=True)
class LiteRTGate:
    """How far a kind of file may be from the checkpoint in float64.

    Attributes:
        pixels, probability: the largest difference for faces; None for that of any export.
        decimals: to which points are rounded, in pixels of the crop, to count as decisions.
        agreement: the least share of equal decisions among the largest batch of faces.
        extremes: the largest difference for noise, black and white, as a multiple of that for faces.
    """

    pixels: float | None
    probability: float | None
    decimals: int
    agreement: float
    extremes: float = 1.0

    def tolerance(self, name: str, rounding: float) -> float:
        if self.pixels is None or self.probability is None:
            return export_tolerance(name, rounding)
        return self.pixels if name in IN_PIXELS else self.probability


GATES: dict[LiteRTKind, LiteRTGate] = {
    "float32": LiteRTGate(None, None, DECIMALS, 0.98),
    "float16": LiteRTGate(0.02, 0.01, 1, 0.95, 5.0),
    "int8": LiteRTGate(1.0, 0.2, 0, 0.9, 3.0),
}


def litert_of(graph: NetworkGraph, kind: LiteRTKind, faces: NDArray[np.uint8]) -> bytes:
    """A face network as a LiteRT file of images float32 (N, 96, 96, 1), 0-255.

    Args:
        graph: of the network.
        kind: of its numbers.
        faces: uint8 (N, 96, 96), from which int8 takes its ranges.

    Raises:
        ExportError: TensorFlow cannot convert it.
    """

    @tf_function(tf.TensorSpec([None, CROP_SIZE, CROP_SIZE, 1], tf.float32, IMAGES_INPUT))
    def network(images: Any) -> dict[str, Any]:
        return graph(images, for_litert=True)

    calibration = [{IMAGES_INPUT: face[None, ..., None].astype(np.float32)} for face in faces]
    return to_litert(network.get_concrete_function(), kind, calibration)


def compare_litert(task: Task, kind: LiteRTKind, content: bytes, cases: list[ParityCase]) -> list[Comparison]:
    """A LiteRT file, in a process of its own, against the checkpoint.

    Raises:
        ExportError: LiteRT rejects the file, or crashes.
    """
    gate, batches = GATES[kind], [case.crops for case in cases if case.crops is not None]
    answers = iter(run_litert(content, [{IMAGES_INPUT: crops} for crops in batches], f"{kind} of {task}"))

    def run(_: NDArray[np.float32]) -> Outputs:
        return next(answers)

    rows = compare_network(f"LiteRT {kind}", task, run, cases, gate.tolerance, gate.decimals)
    most = max(map(len, batches))
    return [
        replace(
            row,
            size=len(content),
            tolerance=row.tolerance * (1.0 if row.kind in FACES else gate.extremes),
            least_agreement=gate.agreement if row.kind in FACES and row.batch == most else 0.0,
        )
        for row in rows
    ]


def litert_record(kinds: Sequence[LiteRTKind], crops: int, source: str) -> dict[str, Any]:
    """For the version's parity.json: the gate of each kind, and the crops from which int8 took its ranges."""
    record: dict[str, Any] = {"gates": {kind: asdict(GATES[kind]) for kind in kinds}}
    return record | ({"calibration": {"crops": crops, "source": source}} if "int8" in kinds else {})
