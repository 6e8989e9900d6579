"""The parity gate: PyTorch = ONNX Runtime = SavedModel, for every signature, batch size and kind of face."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from emotion_ai.client.checks import Outputs
from emotion_ai.client.transport import Inputs
from emotion_ai.contract import IMAGES_INPUT, IMAGES_SIGNATURE, INPUTS, Servable, Task, outputs
from emotion_ai.errors import ParityError
from emotion_ai_export.convert.frameworks import tf
from emotion_ai_export.convert.parity_cases import BATCHES, ParityCase

TOLERANCES = {
    "keypoints": 1e-4,
    "deviations": 1e-4,
    "probabilities": 1e-5,
    "expressions": 1e-5,
    "uncertain_below": 1e-5,
    "classes": 1e-6,
}
"""Given the same pixels: in pixels of the 96x96 crop, and as probability."""

DECODED_TOLERANCES = {
    "keypoints": 1e-3,
    "deviations": 1e-3,
    "probabilities": 1e-4,
    "expressions": 1e-4,
    "uncertain_below": 1e-4,
    "classes": 1e-6,
}
"""Given the same file, which Pillow decodes and resizes for PyTorch, and the served graph for itself."""

IN_PIXELS = ("keypoints", "deviations")


class Predictor(Protocol):
    """Runs served models: loaded SavedModels, or a server through its client."""

    def __call__(self, servable: Servable, signature: str, values: Inputs, /) -> Outputs:
        """The outputs for image files, for crops (N, 96, 96, 1), or for numbers (N,)."""


@dataclass(frozen=True)
class Comparison:
    """The largest difference between one output and PyTorch's, over a batch, and its tolerance."""

    path: str
    servable: str
    signature: str
    output: str
    kind: str
    batch: int
    difference: float
    tolerance: float

    @property
    def passes(self) -> bool:
        return bool(self.difference <= self.tolerance)  # NaN does not pass


@dataclass
class ParityReport:
    rows: list[Comparison] = field(default_factory=list)

    @property
    def worst(self) -> Comparison:
        """The comparison with the largest difference relative to its tolerance."""
        return max(self.rows, key=lambda r: np.inf if np.isnan(r.difference) else r.difference / r.tolerance)

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
            raise ParityError(
                f"{worst.path} differs from its checkpoint by {worst.difference:.3g} {unit} (tolerance "
                f"{worst.tolerance:g}): {worst.servable}, {worst.signature}, {worst.output}, {worst.kind} faces, "
                f"batch {worst.batch}"
            )

    def summary(self) -> list[tuple[str, str, str, float, float]]:
        """(path, servable, output, largest difference, tolerance) over kinds, batches and signatures."""
        groups: dict[tuple[str, str, str, float], list[Comparison]] = {}
        for row in self.rows:
            groups.setdefault((row.path, row.servable, row.output, row.tolerance), []).append(row)
        return [(*key[:3], max(r.difference for r in rows), key[3]) for key, rows in groups.items()]

    def as_dict(self) -> dict[str, Any]:
        return {
            "passes": self.passes,
            "tolerances": {"same pixels": TOLERANCES, "same file": DECODED_TOLERANCES},
            "batches": list(BATCHES),
            "worst": asdict(self.worst),
            "rows": [asdict(row) for row in self.rows],
        }


def compare_onnx(task: Task, model: onnx.ModelProto, cases: list[ParityCase]) -> list[Comparison]:
    """ONNX Runtime against PyTorch."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def predict(_: Servable, __: str, crops: Inputs, /) -> Outputs:
        channels_first = np.asarray(crops).transpose(0, 3, 1, 2)
        return dict(zip(names, session.run(names, {IMAGES_INPUT: channels_first}), strict=True))

    return compare("ONNX Runtime", (task,), predict, cases, (IMAGES_SIGNATURE,))


def compare(
    path: str,
    servables: Sequence[Servable],
    predict: Predictor,
    cases: list[ParityCase],
    signatures: Sequence[str] = tuple(INPUTS),
) -> list[Comparison]:
    """Every output of every servable and signature against PyTorch's."""
    found = []
    for case in cases:
        decoded = case.crops is None
        tolerances = DECODED_TOLERANCES if decoded else TOLERANCES
        for servable in servables:
            for signature in signatures:
                names = outputs(servable, signature)
                values = case.inputs(INPUTS[signature])
                if not names or values is None:
                    continue
                got = predict(servable, signature, values)
                for name in names:
                    difference = _difference(got.get(name), case.expected[name])
                    place = (f"{path} given files" if decoded else path, servable, signature, name)
                    found.append(Comparison(*place, case.kind, len(case.files), difference, tolerances[name]))
    return found


def saved_model_predictor(models: dict[Servable, Any]) -> Predictor:
    """Runs SavedModels loaded by `tf.saved_model.load`."""

    def predict(servable: Servable, signature: str, values: Inputs, /) -> Outputs:
        found = models[servable].signatures[signature](**{INPUTS[signature]: tf.constant(values)})
        return {name: tensor.numpy() for name, tensor in found.items()}

    return predict


def _difference(got: NDArray[Any] | None, expected: NDArray[Any]) -> float:
    if got is not None and expected.dtype == object:
        texts = [[name.decode() if isinstance(name, bytes) else name for name in row] for row in got.tolist()]
        return 0.0 if texts == expected.tolist() else float("inf")
    return float(np.abs(got - expected).max()) if got is not None and got.shape == expected.shape else float("inf")
