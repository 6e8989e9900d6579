"""The gate: PyTorch = ONNX Runtime = SavedModel, on every signature, batch size and kind of face."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from emotion_ai.contract import BYTES_INPUT, BYTES_SIGNATURE, FRAME, IMAGES_INPUT, IMAGES_SIGNATURE, OUTPUTS, Task
from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.errors import ParityError
from emotion_ai.models import FaceNetwork
from emotion_ai.png import encode_png
from emotion_ai_export.frameworks import tf

BATCHES = (1, 2, 7, 64)
TOLERANCES = {"keypoints": 1e-4, "probabilities": 1e-5}
"""Pixels of the 96x96 frame; probability."""

Answers = dict[str, NDArray[np.float32]]
Ask = Callable[[str, str, NDArray[np.uint8]], Answers]
"""(servable, signature, uint8 (N, 96, 96)) to its outputs by name."""


@dataclass(frozen=True)
class Row:
    """The largest difference to PyTorch of one output, over all faces of one kind and batch size."""

    path: str
    servable: str
    signature: str
    output: str
    kind: str
    batch: int
    difference: float

    @property
    def tolerance(self) -> float:
        return TOLERANCES[self.output]

    @property
    def passes(self) -> bool:
        return bool(self.difference <= self.tolerance)  # NaN does not pass


@dataclass
class ParityReport:
    rows: list[Row] = field(default_factory=list)

    @property
    def worst(self) -> Row:
        """The row that comes nearest to, or goes furthest beyond, its tolerance."""
        return max(self.rows, key=lambda r: np.inf if np.isnan(r.difference) else r.difference / r.tolerance)

    @property
    def passes(self) -> bool:
        return bool(self.rows) and all(row.passes for row in self.rows)

    def require(self) -> None:
        """Raises:
        ParityError: the worst difference is beyond its tolerance; names it and where.
        """
        worst = self.worst
        if not self.passes:
            unit = "px" if worst.output == "keypoints" else "probability"
            raise ParityError(
                f"{worst.path} differs from its checkpoint by {worst.difference:.3g} {unit}, allowed is "
                f"{worst.tolerance:g}: {worst.servable}, {worst.signature}, {worst.output}, {worst.kind} faces, "
                f"batch {worst.batch}; nothing was published"
            )

    def summary(self) -> list[tuple[str, str, str, float, float]]:
        """(path, servable, output, largest difference, tolerance) over kinds, batches and signatures."""
        groups: dict[tuple[str, str, str], list[Row]] = {}
        for row in self.rows:
            groups.setdefault((row.path, row.servable, row.output), []).append(row)
        return [(*key, max(r.difference for r in rows), rows[0].tolerance) for key, rows in groups.items()]

    def as_dict(self) -> dict[str, Any]:
        return {
            "passes": self.passes,
            "tolerances": TOLERANCES,
            "batches": list(BATCHES),
            "worst": asdict(self.worst),
            "rows": [asdict(row) for row in self.rows],
        }


def parity_faces(real: NDArray[np.uint8] | None = None, seed: int = 0) -> dict[str, NDArray[np.uint8]]:
    """Faces by kind, uint8 (N, 96, 96): synthetic, black, white, noise, and real ones where given."""
    noise = np.random.default_rng(seed).integers(0, 256, (max(BATCHES), FRAME, FRAME), dtype=np.uint8)
    kinds = {
        "synthetic": synthetic_faces(max(BATCHES), seed).images,
        "black": np.zeros((1, FRAME, FRAME), np.uint8),
        "white": np.full((1, FRAME, FRAME), 255, np.uint8),
        "noise": noise,
    }
    return kinds if real is None or len(real) == 0 else {"real": real, **kinds}


def check_onnx(
    task: Task, network: FaceNetwork, model: onnx.ModelProto, faces: dict[str, NDArray[np.uint8]]
) -> list[Row]:
    """ONNX Runtime against PyTorch."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    output = OUTPUTS[task][0]

    def ask(_: str, __: str, images: NDArray[np.uint8]) -> Answers:
        return {output: session.run([output], {IMAGES_INPUT: images[:, None].astype(np.float32)})[0]}

    return list(_rows("ONNX Runtime", {output: network}, task, ("onnx",), ask, faces))


def check_asked(
    path: str,
    networks: dict[Task, FaceNetwork],
    servables: tuple[str, ...],
    ask: Ask,
    faces: dict[str, NDArray[np.uint8]],
) -> list[Row]:
    """Whatever answers like a server, against PyTorch: loaded SavedModels, or a server through its client."""
    by_output = {OUTPUTS[task][0]: network for task, network in networks.items()}
    signatures = (IMAGES_SIGNATURE, BYTES_SIGNATURE)
    return [row for servable in servables for row in _rows(path, by_output, servable, signatures, ask, faces)]


def ask_saved_models(models: dict[str, Any]) -> Ask:
    """Asks SavedModels as `tf.saved_model.load` gives them, by servable."""

    def ask(servable: str, signature: str, images: NDArray[np.uint8]) -> Answers:
        function = models[servable].signatures[signature]
        if signature == IMAGES_SIGNATURE:
            answers = function(**{IMAGES_INPUT: tf.constant(images[..., None].astype(np.float32))})
        else:
            answers = function(**{BYTES_INPUT: tf.constant([encode_png(image) for image in images])})
        return {name: tensor.numpy() for name, tensor in answers.items()}

    return ask


def _rows(
    path: str,
    networks: dict[str, FaceNetwork],
    servable: str,
    signatures: tuple[str, ...],
    ask: Ask,
    faces: dict[str, NDArray[np.uint8]],
) -> Iterator[Row]:
    for kind, images in faces.items():
        for batch in BATCHES:
            chosen = images[np.arange(batch) % len(images)]
            with torch.inference_mode():
                tensor = torch.from_numpy(chosen)[:, None]
                wanted = {name: networks[name](tensor).numpy() for name in OUTPUTS[servable]}
            for signature in signatures:
                got = ask(servable, signature, chosen)
                for name, value in wanted.items():
                    alike = name in got and got[name].shape == value.shape
                    difference = float(np.abs(got[name] - value).max()) if alike else float("inf")
                    yield Row(path, servable, signature, name, kind, batch, difference)
