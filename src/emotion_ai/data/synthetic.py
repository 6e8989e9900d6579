"""Synthetic faces: a seeded generator of 96x96 gray faces with exact keypoints and one of the five emotions.

They are the default data: enough for both networks to learn from in a minute, and free of anybody's rights.
Face i depends on (seed, i) alone.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emotion_ai.contract import CROP_SIZE, EMOTIONS, KEYPOINTS, Task
from emotion_ai.data.dataset import FaceDataset
from emotion_ai.data.face_drawing import FaceDrawing
from emotion_ai.errors import ConfigError

_VERSION = 1  # of the drawing; part of the fingerprint


@dataclass(frozen=True)
class SyntheticFaces:
    """Faces with both kinds of targets.

    Attributes:
        images: uint8 (N, 96, 96), 0-255.
        points: float32 (N, 15, 2), pixels of the crop, all annotated.
        labels: int64 (N,), indices into `contract.EMOTIONS`.
        fingerprint: of the generator and its arguments.
    """

    images: NDArray[np.uint8]
    points: NDArray[np.float32]
    labels: NDArray[np.int64]
    fingerprint: str

    def faces(self, task: Task) -> FaceDataset:
        """The faces with the targets of one task; images are 96x96 for both."""
        targets = self.points if task == "keypoints" else self.labels
        part = np.full(len(self.images), "", "U11")
        return FaceDataset(task, self.images, targets, part, "synthetic", self.fingerprint)


def synthetic_faces(count: int, seed: int) -> SyntheticFaces:
    """The first `count` faces of a seed; every five successive faces show the five emotions in random order.

    Raises:
        ConfigError: a count below 1, or a negative seed.
    """
    if count < 1 or seed < 0:
        raise ConfigError(f"synthetic faces: count must be >= 1 and seed >= 0, got count={count}, seed={seed}")
    images = np.empty((count, CROP_SIZE, CROP_SIZE), np.uint8)
    points = np.empty((count, len(KEYPOINTS), 2), np.float32)
    labels = np.empty(count, np.int64)
    for i in range(count):
        labels[i] = np.random.default_rng([seed, i // len(EMOTIONS)]).permutation(len(EMOTIONS))[i % len(EMOTIONS)]
        images[i], points[i] = FaceDrawing(np.random.default_rng([seed, i, 1]), EMOTIONS[labels[i]]).draw()
    digest = hashlib.sha256(f"synthetic v{_VERSION} {count} {seed}".encode()).hexdigest()
    return SyntheticFaces(images, points, labels, digest)
