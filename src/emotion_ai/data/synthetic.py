"""Synthetic faces: a seeded generator of 96x96 gray faces with exact keypoints and one of seven expressions.

They are the default data: enough for both networks to learn from in a minute, and free of anybody's rights.
Face i depends on (seed, i) alone.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emotion_ai.class_set import FIVE, ClassSet
from emotion_ai.contract import CROP_SIZE, KEYPOINTS, Task
from emotion_ai.data.dataset import FaceDataset
from emotion_ai.data.face_drawing import DRAWN, FaceDrawing
from emotion_ai.errors import ConfigError

_VERSION = 1  # of the drawing; part of the fingerprint


@dataclass(frozen=True)
class SyntheticFaces:
    """Faces with both kinds of targets.

    Attributes:
        images: uint8 (N, 96, 96), 0-255.
        points: float32 (N, 15, 2), pixels of the crop, all annotated.
        labels: int64 (N,), indices into `classes`.
        fingerprint: of the generator and its arguments.
        classes: the drawn expressions.
    """

    images: NDArray[np.uint8]
    points: NDArray[np.float32]
    labels: NDArray[np.int64]
    fingerprint: str
    classes: ClassSet = FIVE

    def faces(self, task: Task) -> FaceDataset:
        """The faces with the targets of one task; images are 96x96 for both."""
        targets = self.points if task == "keypoints" else self.labels
        part = np.full(len(self.images), "", "U11")
        return FaceDataset(task, self.images, targets, part, "synthetic", self.fingerprint, classes=self.classes)


def synthetic_faces(count: int, seed: int, classes: ClassSet | None = FIVE) -> SyntheticFaces:
    """The first `count` faces of a seed; K successive faces show the K classes in random order.

    Raises:
        ConfigError: a count below 1, a negative seed, or classes that cannot be drawn.
    """
    if classes is None or not set(classes.names) <= set(DRAWN):
        raise ConfigError(f"synthetic faces show {', '.join(DRAWN)}; for other classes give data.train=FOLDER")
    number = len(classes)
    if count < 1 or seed < 0:
        raise ConfigError(f"synthetic faces: count must be >= 1 and seed >= 0, got count={count}, seed={seed}")
    images = np.empty((count, CROP_SIZE, CROP_SIZE), np.uint8)
    points = np.empty((count, len(KEYPOINTS), 2), np.float32)
    labels = np.empty(count, np.int64)
    for i in range(count):
        labels[i] = np.random.default_rng([seed, i // number]).permutation(number)[i % number]
        images[i], points[i] = FaceDrawing(np.random.default_rng([seed, i, 1]), classes.names[labels[i]]).draw()
    shown = "" if classes == FIVE else f" {classes.names}"
    digest = hashlib.sha256(f"synthetic v{_VERSION} {count} {seed}{shown}".encode()).hexdigest()
    return SyntheticFaces(images, points, labels, digest, classes)
