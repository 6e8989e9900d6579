"""The inputs of the parity gate, with PyTorch's predictions for them in float64."""

import copy
import io
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from emotion_ai.client.checks import Outputs
from emotion_ai.client.transport import Inputs
from emotion_ai.contract import (
    BYTES_INPUT,
    CLASSES,
    CROP_SIZE,
    DEVIATIONS,
    EXPRESSIONS,
    REQUEST_INPUT,
    UNCERTAIN_BELOW,
    Task,
)
from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.inference.verdict import VerdictRule
from emotion_ai.models import FaceNetwork
from emotion_ai.vision.crops import resize_to_crop
from emotion_ai.vision.photo import encode_png

BATCHES = (1, 2, 7, 64)

LEAST_ROUNDING = {
    "keypoints": 1e-5,
    "deviations": 1e-5,
    "probabilities": 4e-7,
    "expressions": 4e-7,
    "uncertain_below": 4e-7,
}
"""That any network may have: in pixels of the crop, and as probability."""

Rule = float | VerdictRule
"""Of a verdict, or one threshold."""


@dataclass(frozen=True)
class ParityCase:
    """One request, and PyTorch's predictions for it in float64.

    Attributes:
        kind: of face, or of file.
        crops: float32 (N, 96, 96, 1); None if the server must decode and resize the files.
        files: N images.
        expected: the outputs of all networks, computed in float64.
        rounding: how far the networks' own float32 outputs are from them at most, over all cases of a check.
    """

    kind: str
    crops: NDArray[np.float32] | None
    files: list[bytes]
    expected: Outputs
    rounding: dict[str, float] = field(default_factory=dict)

    def inputs(self, name: str) -> Inputs | None:
        """What a signature's input of that name takes; None if the case has no such input."""
        if name == REQUEST_INPUT:
            return np.zeros(len(self.files), np.int32)
        return self.files if name == BYTES_INPUT else self.crops


def parity_faces(real: NDArray[np.uint8] | None = None, seed: int = 0) -> dict[str, NDArray[np.uint8]]:
    """Crops by kind, uint8 (N, 96, 96): synthetic, black, white, noise, and real ones if given."""
    noise = np.random.default_rng(seed).integers(0, 256, (max(BATCHES), CROP_SIZE, CROP_SIZE), dtype=np.uint8)
    kinds = {
        "synthetic": synthetic_faces(max(BATCHES), seed).images,
        "black": np.zeros((1, CROP_SIZE, CROP_SIZE), np.uint8),
        "white": np.full((1, CROP_SIZE, CROP_SIZE), 255, np.uint8),
        "noise": noise,
    }
    return kinds if real is None or len(real) == 0 else {"real": real, **kinds}


def pixel_cases(
    networks: dict[Task, FaceNetwork],
    faces: dict[str, NDArray[np.uint8]],
    rule: Rule = 0.0,
) -> list[ParityCase]:
    """Every kind of face at every batch size; the files hold the crops without loss."""
    answers = _Answers(networks, rule)
    cases = []
    for kind, images in faces.items():
        exact = answers(images[: max(BATCHES)])
        for batch in BATCHES:
            rows = np.arange(batch) % len(images)
            files = [encode_png(image) for image in images[rows]]
            expected = {name: values[rows] for name, values in exact.items()}
            crops = images[rows][..., None].astype(np.float32)
            cases.append(ParityCase(kind, crops, files, expected, answers.rounding))
    return cases


def file_cases(networks: dict[Task, FaceNetwork], rule: Rule = 0.0) -> list[ParityCase]:
    """Every kind of file, decoded and resized for PyTorch as in training."""
    answers = _Answers(networks, rule)
    cases = []
    for kind, file in picture_files().items():
        gray = np.asarray(Image.open(io.BytesIO(file)).convert("L"))
        cases.append(ParityCase(kind, None, [file], answers(resize_to_crop(gray)[None]), answers.rounding))
    return cases


@cache
def picture_files(seed: int = 0) -> dict[str, bytes]:
    """Faces as image files of many formats, modes and sizes, by their description."""
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
        shown = ", ".join(f"{name} {value}" for name, value in settings.items())
        files[f"{kind} {mode} {size[0]}x{size[1]}{', ' + shown if shown else ''}"] = file.getvalue()
    return files


class _Answers:
    """Predictions in float64; `rounding` is the largest difference of those in float32 so far, by output.

    Every output counts as rounded by `LEAST_ROUNDING` at least: a shallow network may be lucky.
    """

    def __init__(self, networks: dict[Task, FaceNetwork], rule: Rule) -> None:
        self.networks, self.rule = networks, rule
        self.exact_networks = {task: copy.deepcopy(network).double() for task, network in networks.items()}
        self.rounding: dict[str, float] = {}

    def __call__(self, images: NDArray[Any]) -> Outputs:
        exact, rounded = (_predict(networks, images, self.rule) for networks in (self.exact_networks, self.networks))
        for name, values in exact.items():
            if values.dtype != object:
                least = LEAST_ROUNDING[name]
                error = np.abs(values - rounded[name]).max()
                self.rounding[name] = float(max(self.rounding.get(name, 0.0), least, error))
        return exact


def _predict(networks: dict[Task, FaceNetwork], images: NDArray[Any], rule: Rule) -> Outputs:
    with torch.inference_mode():
        tensor = torch.from_numpy(images.copy())[:, None]  # Pillow's pixels are read-only
        found = {}
        others: Outputs = {}
        if "keypoints" in networks:
            found["keypoints"], found[DEVIATIONS] = networks["keypoints"].uncertainty(tensor)
        if "emotion" in networks:
            found["probabilities"], found[EXPRESSIONS] = networks["emotion"].classified(tensor)
            names = networks["emotion"].spec.class_set.names
            verdict = rule if isinstance(rule, VerdictRule) else VerdictRule((rule,) * len(names))
            others[UNCERTAIN_BELOW] = verdict.bounds(found[EXPRESSIONS].numpy())
            others[CLASSES] = np.array([names] * len(images), object)
        return {name: output.numpy() for name, output in found.items()} | others
