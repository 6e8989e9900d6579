"""The form in which faces and their targets pass through the library."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from emotion_ai.class_set import FIVE, ClassSet
from emotion_ai.contract import Task
from emotion_ai.data.cache import spill_folder
from emotion_ai.data.image_arrays import take

Targets = NDArray[np.float32] | NDArray[np.int64]


@dataclass(frozen=True)
class FaceDataset:
    """Face images with the targets of one task.

    Attributes:
        task: which targets these are.
        images: uint8 (N, H, W), 0-255; 96x96 for keypoints, 48x48 for emotion as in FER2013. Beyond the memory budget
            (`image_arrays`) they are mapped from a file, read-only.
        targets: keypoints float32 (N, 15, 2) in pixels of the 96x96 crop, NaN where not annotated; or class indices
            int64 (N,), -1 for a face outside the classes; or soft targets float32 (N, K), class distributions.
        part: str (N,), "Training", "PublicTest" or "PrivateTest" where the source has a Usage column, otherwise "".
        source: file, folder or "synthetic", for messages and records.
        fingerprint: SHA-256 of the source's bytes, or of the generator's arguments.
        ids: str (N,), a row's number in the CSV file, from 1, or a picture's path in the folder; None if it has none.
        votes: float32 (N, K), the share of FER+ annotators who chose each class; None without a vote file.
        class_ids: what class ids the source has: "five", "fer7", or "" if it has names or none.
        classes: what the class indices mean; for emotion.
    """

    task: Task
    images: NDArray[np.uint8]
    targets: Targets
    part: NDArray[np.str_]
    source: str
    fingerprint: str
    votes: NDArray[np.float32] | None = None
    class_ids: str = ""
    ids: NDArray[np.str_] | None = None
    classes: ClassSet = FIVE

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Self:
        votes = None if self.votes is None else self.votes[rows]
        ids = None if self.ids is None else self.ids[rows]
        images = take(self.images, rows, spill_folder())
        return replace(self, images=images, targets=self.targets[rows], part=self.part[rows], votes=votes, ids=ids)

    @property
    def points(self) -> NDArray[np.float32]:
        """The targets of a keypoint dataset, float32 (N, 15, 2)."""
        if self.targets.ndim != 3:
            raise TypeError(f"{self.source}: a dataset for {self.task} has no keypoints")
        return self.targets.astype(np.float32, copy=False)

    @property
    def labels(self) -> NDArray[np.int64]:
        """The targets of an emotion dataset, int64 (N,)."""
        if self.targets.ndim != 1:
            raise TypeError(f"{self.source}: this dataset has no class labels")
        return self.targets.astype(np.int64, copy=False)
