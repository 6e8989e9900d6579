"""The one form in which faces travel through the library."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from emotion_ai.contract import Task


@dataclass(frozen=True)
class FaceDataset:
    """Faces with their targets.

    Attributes:
        task: what the targets are for.
        images: uint8 (N, H, W), 0-255; 96x96 for keypoints, 48x48 for emotion as FER2013 has them.
        targets: float32 (N, 15, 2) in pixels of the 96x96 frame, NaN where not annotated; or int64 (N,) class indices,
            -1 for a face whose label is none of the five; or what is learnt instead, float32 (N, 5): distributions.
        part: str (N,), "Training", "PublicTest", "PrivateTest" where the source says so, otherwise "".
        source: where they come from, for messages and records.
        fingerprint: SHA-256 of the source's bytes, or of the generator's arguments.
        votes: float32 (N, 5), the share of later annotators who saw each of the five; None without such a source.
    """

    task: Task
    images: NDArray[np.uint8]
    targets: NDArray[np.float32] | NDArray[np.int64]
    part: NDArray[np.str_]
    source: str
    fingerprint: str
    votes: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Self:
        votes = None if self.votes is None else self.votes[rows]
        return replace(self, images=self.images[rows], targets=self.targets[rows], part=self.part[rows], votes=votes)
