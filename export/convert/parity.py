"""The parity gate: PyTorch = ONNX Runtime = SavedModel, for every signature, batch size and kind of face.

All are compared with the checkpoint in float64. How far its own float32 outputs are from that is its rounding, and an
export may add a few times as much.
"""

import copy
import gc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from emotion_ai.client.checks import Outputs
from emotion_ai.client.transport import Inputs
from emotion_ai.contract import (
    BYTES_SIGNATURE,
    DEVIATIONS,
    EXPRESSIONS,
    IMAGES_INPUT,
    IMAGES_SIGNATURE,
    INPUTS,
    Servable,
    Task,
    outputs,
)
from emotion_ai.errors import ParityError
from emotion_ai.models import FaceNetwork
from emotion_ai.models.device import GPU_TOLERANCE, DeviceBatches, Placement
from emotion_ai_export.convert.float64 import in_float64
from emotion_ai_export.convert.frameworks import tf
from emotion_ai_export.convert.parity_cases import BATCHES, ParityCase

ROUNDING_MULTIPLE = 4.0
"""How many times the checkpoint's own float32 rounding an export may add to it."""

FLOAT64_MULTIPLE = 1.0
"""How many times that rounding an export may show if it is computed in float64.

Only its weights are rounded then, once more where a batch norm is folded into them.
"""

BOUNDS = {
    "keypoints": 5e-3,
    "deviations": 5e-3,
    "probabilities": 1e-4,
    "expressions": 1e-4,
    "uncertain_below": 1e-4,
    "classes": 1e-6,
}
"""What no difference may exceed, however much the checkpoint rounds: in pixels of the crop, and as probability."""

DECODED_ALLOWANCES = {
    "keypoints": 1e-3,
    "deviations": 1e-3,
    "probabilities": 1e-4,
    "expressions": 1e-4,
    "uncertain_below": 1e-4,
    "classes": 0.0,
}
"""Added for a file, which Pillow decodes and resizes for PyTorch, and the served graph for itself."""

IN_PIXELS = ("keypoints", "deviations")
DECIMALS = 2
"""Points agree as decisions if they round to the same 0.01 px, probabilities if the same class is most probable."""


T = TypeVar("T")


class Predictor(Protocol):
    """Runs served models: loaded SavedModels, or a server through its client."""

    def __call__(self, servable: Servable, signature: str, values: Inputs, /) -> Outputs:
        """The outputs for image files, for crops (N, 96, 96, 1), or for numbers (N,)."""


@dataclass(frozen=True)
class Comparison:
    """The largest difference between one output and the checkpoint's in float64, over a batch, and its tolerance.

    Attributes:
        rounding: the largest difference of the checkpoint's own float32 outputs over all inputs; the tolerance follows
            from it.
        agreement: the share of equal decisions; None for outputs that decide nothing.
        least_agreement: which it must reach.
        size: of the compared file, in bytes.
    """

    path: str
    servable: str
    signature: str
    output: str
    kind: str
    batch: int
    difference: float
    tolerance: float
    rounding: float = 0.0
    agreement: float | None = None
    least_agreement: float = 0.0
    size: int | None = None

    @property
    def passes(self) -> bool:
        agrees = self.agreement is None or self.agreement >= self.least_agreement
        return bool(self.difference <= self.tolerance) and agrees  # NaN does not pass


@dataclass
class ParityReport:
    rows: list[Comparison] = field(default_factory=list)

    @property
    def worst(self) -> Comparison:
        """The comparison with the largest difference relative to its tolerance."""

        def share(row: Comparison) -> tuple[bool, float]:
            return not row.passes, np.inf if np.isnan(row.difference) else row.difference / row.tolerance

        return max(self.rows, key=share)

    @property
    def passes(self) -> bool:
        return bool(self.rows) and all(row.passes for row in self.rows)

    def require(self) -> None:
        """Raises:
        ParityError: a difference is beyond its tolerance; names the worst.
        """
        worst = self.worst
        if not self.passes:
            unit = "px" if worst.output in IN_PIXELS else "probability"
            place = f"{worst.servable}, {worst.signature}, {worst.output}, {worst.kind} faces, batch {worst.batch}"
            if worst.difference <= worst.tolerance:
                raise ParityError(
                    f"{worst.path} decides as its checkpoint in {worst.agreement:.1%} of the cases, not in "
                    f"{worst.least_agreement:.0%}: {place}"
                )
            raise ParityError(
                f"{worst.path} differs from its checkpoint by {worst.difference:.3g} {unit} (tolerance "
                f"{worst.tolerance:.3g}): {place}"
            )

    def summary(self) -> list[Comparison]:
        """The worst row of each path, servable and output, with the worst agreement."""
        groups: dict[tuple[str, str, str], list[Comparison]] = {}
        for row in self.rows:
            groups.setdefault((row.path, row.servable, row.output), []).append(row)
        found = []
        for rows in groups.values():
            agreement = min((row.agreement for row in rows if row.agreement is not None), default=None)
            found.append(replace(ParityReport(rows).worst, agreement=agreement))
        return found

    def as_dict(self) -> dict[str, Any]:
        return {
            "passes": self.passes,
            "rule": {
                "reference": "the checkpoint in float64",
                "multiple of its float32 rounding that an export may add": ROUNDING_MULTIPLE,
                "multiple of it in float64": FLOAT64_MULTIPLE,
                "bounds": BOUNDS,
                "added for decoding and resizing a file": DECODED_ALLOWANCES,
                "of a checkpoint on a GPU": GPU_TOLERANCE._asdict(),
                "TF32": False,
            },
            "batches": list(BATCHES),
            "worst": asdict(self.worst),
            "rows": [asdict(row) for row in self.rows],
        }


def compare_onnx(task: Task, model: bytes, cases: list[ParityCase]) -> list[Comparison]:
    """An ONNX file in ONNX Runtime against PyTorch."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(crops: NDArray[np.float32]) -> Outputs:
        return dict(zip(names, session.run(names, {IMAGES_INPUT: crops.transpose(0, 3, 1, 2)}), strict=True))

    return compare_network("ONNX Runtime", task, run, cases, export_tolerance)


def compare_network(
    path: str,
    task: Task,
    run: Callable[[NDArray[np.float32]], Outputs],
    cases: list[ParityCase],
    tolerance: Callable[[str, float], float],
    decimals: int = DECIMALS,
) -> list[Comparison]:
    """All outputs of one network against PyTorch's.

    Args:
        path: the name of what is compared.
        task: of the network.
        run: the outputs for crops float32 (N, 96, 96, 1).
        cases: the inputs and the predictions in float64; those without crops are left out.
        tolerance: from an output's name and the checkpoint's own rounding of it.
        decimals: to which points are rounded to count as decisions.
    """
    names = ("keypoints", DEVIATIONS) if task == "keypoints" else ("probabilities", EXPRESSIONS)
    found = []
    for case in cases:
        if case.crops is None:
            continue
        got = run(case.crops)
        if "probabilities" in got:
            got.setdefault(EXPRESSIONS, got["probabilities"])  # a network of the five emotions has one output
        for name in names:
            rounding = case.rounding.get(name, 0.0)
            found.append(
                Comparison(
                    *(path, task, IMAGES_SIGNATURE, name, case.kind, len(case.files)),
                    _difference(got.get(name), case.expected[name]),
                    tolerance(name, rounding),
                    rounding,
                    _agreement(name, got.get(name), case.expected[name], decimals),
                )
            )
    return found


def export_tolerance(name: str, rounding: float, multiple: float = 1 + ROUNDING_MULTIPLE) -> float:
    """How far an export may be from float64, of which the checkpoint itself differs by its rounding."""
    return min(multiple * rounding, BOUNDS[name]) if rounding else BOUNDS[name]


def compare(
    path: str,
    servables: Sequence[Servable],
    predict: Predictor,
    cases: list[ParityCase],
    signatures: Sequence[str] = tuple(INPUTS),
    multiple: float = 1 + ROUNDING_MULTIPLE,
) -> list[Comparison]:
    """Every output of every servable and signature against PyTorch's.

    Args:
        path: the name of what is compared.
        servables: which of them `predict` runs.
        predict: runs them.
        cases: the inputs and the predictions in float64.
        signatures: which are compared.
        multiple: of the checkpoint's own rounding, by which they may differ at most.
    """
    found = []
    for case in cases:
        decoded = case.crops is None
        for servable in servables:
            for signature in signatures:
                names = outputs(servable, signature)
                values = case.inputs(INPUTS[signature])
                if not names or values is None:
                    continue
                got = predict(servable, signature, values)
                for name in names:
                    rounding = case.rounding.get(name, 0.0)
                    tolerance = export_tolerance(name, rounding, multiple)
                    tolerance += DECODED_ALLOWANCES[name] if decoded else 0.0
                    place = (f"{path} given files" if decoded else path, servable, signature, name)
                    size = case.kind, len(case.files)
                    difference = _difference(got.get(name), case.expected[name])
                    agreement = _agreement(name, got.get(name), case.expected[name])
                    found.append(Comparison(*place, *size, difference, tolerance, rounding, agreement))
    return found


def compare_saved_model(servable: Servable, cases: list[ParityCase], model: Any) -> list[Comparison]:
    """A loaded SavedModel against PyTorch, through all its signatures of the contract, and in float64."""
    # float64 first: its graph is released before the signatures' own are built
    rows = compare_in_float64({servable: model}, cases)
    gc.collect()
    predict = saved_model_predictor({servable: model})
    return rows + compare("SavedModel", (servable,), predict, cases, signatures_of(model))


def signatures_of(model: Any) -> tuple[str, ...]:
    """Those of the contract that a loaded SavedModel has; one from before a signature was added lacks it."""
    return tuple(name for name in INPUTS if name in model.signatures or name in (IMAGES_SIGNATURE, BYTES_SIGNATURE))


def with_saved_model(folder: Path, use: Callable[[Any], T]) -> T:
    """What `use` returns for a SavedModel, which is released after it: that of a big network takes gigabytes."""
    gc.collect()  # functions of TensorFlow are in cycles; what wrote the SavedModel holds as much
    try:
        return use(tf.saved_model.load(str(folder)))
    finally:
        gc.collect()


def compare_in_float64(models: dict[Servable, Any], cases: list[ParityCase]) -> list[Comparison]:
    """The graphs of loaded SavedModels, computed in float64, against PyTorch's: finds errors far below any rounding.

    One small batch of each kind of face: float64 is slow.
    """
    few = {case.kind: case for case in reversed(cases) if case.crops is not None and len(case.files) > 1}
    exact = {name: in_float64(model.signatures[IMAGES_SIGNATURE]) for name, model in models.items()}

    def predict(servable: Servable, _: str, crops: Inputs, /) -> Outputs:
        return exact[servable](np.asarray(crops))

    place = "SavedModel in float64", tuple(models)
    return compare(*place, predict, list(few.values()), (IMAGES_SIGNATURE,), FLOAT64_MULTIPLE)


def compare_on_device(
    networks: dict[Task, FaceNetwork], placement: Placement, cases: list[ParityCase]
) -> list[Comparison]:
    """The checkpoints on a GPU, in float32 without TF32, against those in float64.

    Other comparisons say nothing about it: the rounding in their tolerances is a CPU's.
    """
    batches, found = DeviceBatches(placement.device), []
    for task, network in networks.items():
        placed = placement.place(copy.deepcopy(network))
        function, names = placed.uncertainty, ("keypoints", DEVIATIONS)
        if task == "emotion":
            function, names = placed.classified, ("probabilities", EXPRESSIONS)

        def run(crops: NDArray[np.float32], function: Any = function, names: tuple[str, ...] = names) -> Outputs:
            return dict(zip(names, batches.run(function, crops, _channels_first), strict=True))

        found += compare_network(f"PyTorch on {placement.name}", task, run, cases, device_tolerance)
    return found


def device_tolerance(name: str, rounding: float) -> float:
    """How far a checkpoint on a GPU may be from float64: `GPU_TOLERANCE`; more if it rounds much on a CPU as well."""
    least = GPU_TOLERANCE.pixels if name in IN_PIXELS else GPU_TOLERANCE.probability
    return max(least, min((1 + ROUNDING_MULTIPLE) * rounding, BOUNDS[name]))


def _channels_first(crops: NDArray[np.float32]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(crops.transpose(0, 3, 1, 2)))


def saved_model_predictor(models: dict[Servable, Any]) -> Predictor:
    """Runs SavedModels loaded by `tf.saved_model.load`."""

    def predict(servable: Servable, signature: str, values: Inputs, /) -> Outputs:
        found = models[servable].signatures[signature](**{INPUTS[signature]: tf.constant(values)})
        return {name: tensor.numpy() for name, tensor in found.items()}

    return predict


def _agreement(name: str, got: NDArray[Any] | None, expected: NDArray[Any], decimals: int = DECIMALS) -> float | None:
    if name not in ("keypoints", "probabilities", "expressions"):
        return None
    if got is None or got.shape != expected.shape:
        return 0.0
    if name in IN_PIXELS:
        return float((got.astype(np.float32).round(decimals) == expected.astype(np.float32).round(decimals)).mean())
    return float((got.argmax(1) == expected.argmax(1)).mean())


def _difference(got: NDArray[Any] | None, expected: NDArray[Any]) -> float:
    if got is not None and expected.dtype == object:
        texts = [[name.decode() if isinstance(name, bytes) else name for name in row] for row in got.tolist()]
        return 0.0 if texts == expected.tolist() else float("inf")
    return float(np.abs(got - expected).max()) if got is not None and got.shape == expected.shape else float("inf")
