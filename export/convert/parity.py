"""The gate: PyTorch = ONNX Runtime = SavedModel, on every signature, batch size and kind of face."""

import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from PIL import Image

from emotion_ai.contract import (
    BYTES_INPUT,
    CROP_SIZE,
    DEVIATIONS,
    IMAGES_INPUT,
    IMAGES_SIGNATURE,
    INPUTS,
    Servable,
    Task,
    outputs,
)
from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.errors import ParityError
from emotion_ai.models import FaceNetwork
from emotion_ai.vision.crops import resize_to_crop
from emotion_ai.vision.photo import encode_png
from emotion_ai_export.convert.frameworks import tf

BATCHES = (1, 2, 7, 64)
TOLERANCES = {"keypoints": 1e-4, "deviations": 1e-4, "probabilities": 1e-5}
"""Given the same pixels; pixels of the 96x96 frame, and probability."""

DECODED_TOLERANCES = {"keypoints": 1e-3, "deviations": 1e-3, "probabilities": 1e-4}
"""Given the same file: decoded and resized by Pillow for PyTorch, by the served graph for itself."""

Answers = dict[str, NDArray[np.float32]]
Ask = Callable[[str, str, list[bytes] | NDArray[np.float32]], Answers]
"""(servable, signature, its input: image files, or frames (N, 96, 96, 1)) to its outputs by name."""


@dataclass(frozen=True)
class Row:
    """The largest difference to PyTorch of one output, and the allowed one, over faces of one kind and batch size."""

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
        groups: dict[tuple[str, str, str, float], list[Row]] = {}
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


def parity_faces(real: NDArray[np.uint8] | None = None, seed: int = 0) -> dict[str, NDArray[np.uint8]]:
    """Faces by kind, uint8 (N, 96, 96): synthetic, black, white, noise, and real ones where given."""
    noise = np.random.default_rng(seed).integers(0, 256, (max(BATCHES), CROP_SIZE, CROP_SIZE), dtype=np.uint8)
    kinds = {
        "synthetic": synthetic_faces(max(BATCHES), seed).images,
        "black": np.zeros((1, CROP_SIZE, CROP_SIZE), np.uint8),
        "white": np.full((1, CROP_SIZE, CROP_SIZE), 255, np.uint8),
        "noise": noise,
    }
    return kinds if real is None or len(real) == 0 else {"real": real, **kinds}


@dataclass(frozen=True)
class Case:
    """One request, and what PyTorch answers to it.

    Attributes:
        kind: of face, or of file.
        frames: float32 (N, 96, 96, 1); None where the server itself decodes and resizes.
        files: N images.
        wanted: each network's answer, by output name.
    """

    kind: str
    frames: NDArray[np.float32] | None
    files: list[bytes]
    wanted: Answers


def same_pixels(networks: dict[Task, FaceNetwork], faces: dict[str, NDArray[np.uint8]]) -> list[Case]:
    """Every kind of face at every batch size; the files hold the frames without loss."""
    cases = []
    for kind, images in faces.items():
        for batch in BATCHES:
            chosen = images[np.arange(batch) % len(images)]
            files = [encode_png(image) for image in chosen]
            cases.append(Case(kind, chosen[..., None].astype(np.float32), files, _answers(networks, chosen)))
    return cases


def same_files(networks: dict[Task, FaceNetwork]) -> list[Case]:
    """Every kind of file, decoded and resized for PyTorch as in training."""
    cases = []
    for kind, file in picture_files().items():
        gray = np.asarray(Image.open(io.BytesIO(file)).convert("L"))
        cases.append(Case(kind, None, [file], _answers(networks, resize_to_crop(gray)[None])))
    return cases


def check_onnx(task: Task, model: onnx.ModelProto, cases: list[Case]) -> list[Row]:
    """ONNX Runtime against PyTorch."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def ask(_: str, __: str, frames: Any) -> Answers:
        return dict(zip(names, session.run(names, {IMAGES_INPUT: frames.transpose(0, 3, 1, 2)}), strict=True))

    return check_asked("ONNX Runtime", (task,), ask, cases, (IMAGES_SIGNATURE,))


def check_asked(
    path: str,
    servables: tuple[Servable, ...],
    ask: Ask,
    cases: list[Case],
    signatures: Sequence[str] = tuple(INPUTS),
) -> list[Row]:
    """Whatever answers like a server, against PyTorch: loaded SavedModels, or a server through its client."""
    rows = []
    for case in cases:
        decoded = case.frames is None
        tolerances = DECODED_TOLERANCES if decoded else TOLERANCES
        for servable in servables:
            for signature in signatures:
                wanted = outputs(servable, signature)
                given = case.files if INPUTS[signature] == BYTES_INPUT else case.frames
                if not wanted or given is None:
                    continue
                got = ask(servable, signature, given)
                for name in wanted:
                    difference = _difference(got.get(name), case.wanted[name])
                    place = (f"{path} given files" if decoded else path, servable, signature, name)
                    rows.append(Row(*place, case.kind, len(case.files), difference, tolerances[name]))
    return rows


@cache
def picture_files(seed: int = 0) -> dict[str, bytes]:
    """Faces as files of many kinds and sizes, by what they are."""
    kinds: list[tuple[str, str, tuple[int, int], dict[str, Any]]] = [
        *(("L", "JPEG", (96, 96), {"quality": quality}) for quality in (30, 75, 95)),
        *(("RGB", "JPEG", size, {"quality": 85}) for size in ((97, 131), (240, 200), (31, 48))),
        ("RGB", "JPEG", (180, 180), {"quality": 60, "progressive": True}),
        ("RGB", "JPEG", (128, 128), {"quality": 90, "subsampling": 0}),
        *(("L", "PNG", size, {}) for size in ((48, 48), (211, 307), (1, 1))),
        *((mode, "PNG", (120, 90), {}) for mode in ("RGB", "RGBA", "LA", "P", "1")),
    ]
    faces = synthetic_faces(len(kinds), seed).images
    files = {}
    for face, (mode, kind, size, settings) in zip(faces, kinds, strict=True):
        tinted = np.stack([face, face[::-1] // 2 + 60, 255 - face], -1)
        picture = Image.fromarray(tinted).resize(size, Image.Resampling.BICUBIC)
        if mode in ("RGBA", "LA"):
            picture = picture.convert(mode[:-1])
            picture.putalpha(Image.linear_gradient("L").resize(size))
        file = io.BytesIO()
        picture.convert(mode).save(file, kind, **settings)
        said = ", ".join(f"{name} {value}" for name, value in settings.items())
        files[f"{kind} {mode} {size[0]}x{size[1]}{', ' + said if said else ''}"] = file.getvalue()
    return files


def ask_saved_models(models: dict[str, Any]) -> Ask:
    """Asks SavedModels as `tf.saved_model.load` gives them, by servable."""

    def ask(servable: str, signature: str, values: Any) -> Answers:
        answers = models[servable].signatures[signature](**{INPUTS[signature]: tf.constant(values)})
        return {name: tensor.numpy() for name, tensor in answers.items()}

    return ask


def _answers(networks: dict[Task, FaceNetwork], images: NDArray[Any]) -> Answers:
    with torch.inference_mode():
        tensor = torch.from_numpy(images.copy())[:, None]  # Pillow's pixels are read-only
        answers = {}
        if "keypoints" in networks:
            answers["keypoints"], answers[DEVIATIONS] = networks["keypoints"].uncertainty(tensor)
        if "emotion" in networks:
            answers["probabilities"] = networks["emotion"](tensor)
        return {name: answer.numpy() for name, answer in answers.items()}


def _difference(got: NDArray[np.float32] | None, wanted: NDArray[np.float32]) -> float:
    return float(np.abs(got - wanted).max()) if got is not None and got.shape == wanted.shape else float("inf")
