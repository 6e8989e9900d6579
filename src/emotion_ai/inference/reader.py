"""`FaceReader`: reads faces with PyTorch, without a server; needs the extra [train]."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from emotion_ai.contract import KEYPOINTS
from emotion_ai.errors import ConfigError, MissingExtraError
from emotion_ai.inference.pipeline import read_photo
from emotion_ai.inference.results import CropReadings, Crops, FaceReading, check_crops, check_threshold
from emotion_ai.inference.verdict import VerdictRule
from emotion_ai.vision.crops import resize_to_crop
from emotion_ai.vision.photo import Photo, Source

try:
    import torch

    from emotion_ai.models import FaceNetwork, load_network
    from emotion_ai.models.device import DeviceBatches, Placement
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f"reading faces without a server needs {error.name}: pip install 'emotion-ai[train]', or give a server"
    ) from error


def _after_fork() -> None:
    torch.set_num_threads(1)  # PyTorch would wait for ever for threads that stayed in the first process


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)


class FaceReader:
    """Reads faces with a keypoint and an emotion network, on the device of the first.

    A GPU's results differ from the CPU's in the last digits. TF32, which is less exact, is off while it reads.

    A reader cannot be used after `os.fork`, because PyTorch's threads stay in the first process: its methods raise
    ConfigError there. Create it in the new process, where PyTorch then uses one thread, or start processes by spawn.

    Args:
        keypoints: a network for keypoints.
        emotion: a network for emotion.
        uncertain_below: confidence below which a class counts as uncertain, or a rule.

    Raises:
        ConfigError: `uncertain_below` is not between 0 and 1.
    """

    def __init__(
        self, keypoints: FaceNetwork, emotion: FaceNetwork, uncertain_below: float | VerdictRule = 0.0
    ) -> None:
        if emotion.device != keypoints.device:
            emotion = emotion.to(keypoints.device)
        self._networks, self._process = (keypoints, emotion), os.getpid()
        self._batches = DeviceBatches(keypoints.device)
        self.classes = emotion.spec.class_set.names
        self.rule = (
            uncertain_below
            if isinstance(uncertain_below, VerdictRule)
            else VerdictRule((check_threshold(uncertain_below),) * len(self.classes))
        )

    @property
    def uncertain_below(self) -> float:
        """The probability below which no class is the verdict: the lowest of `rule.thresholds`."""
        return min(self.rule.thresholds)

    @classmethod
    def bundled(cls, uncertain_below: float | None = None, *, device: str = "auto", precision: str = "fp32") -> Self:
        """A reader with the bundled weights; arguments as for `load`."""
        return cls.load(uncertain_below=uncertain_below, device=device, precision=precision)

    @classmethod
    def load(
        cls,
        keypoints: str | Path = "bundled",
        emotion: str | Path = "bundled",
        uncertain_below: float | None = None,
        *,
        device: str = "auto",
        precision: str = "fp32",
    ) -> Self:
        """A reader with the weights of two checkpoints.

        Args:
            keypoints: a checkpoint for keypoints, or "bundled".
            emotion: a checkpoint for emotion, or "bundled".
            uncertain_below: by default the rule stored in the emotion checkpoint, or 0 without any.
            device: "cpu", "cuda", "cuda:1", "mps" or another device of PyTorch; "auto" uses a GPU if there is one.
            precision: "fp32", or "bf16" or "fp16", which a GPU computes faster and less exactly.

        Raises:
            CheckpointError: a checkpoint cannot be loaded.
            ConfigError: `uncertain_below` is not between 0 and 1, or the device or the precision is not available.
        """
        placement = Placement.of(device, precision)
        points, classifier = load_network(keypoints, "keypoints"), load_network(emotion, "emotion")
        own = VerdictRule.of(classifier.record, classifier.network.spec.class_set)
        rule = own if uncertain_below is None else uncertain_below
        return cls(placement.place(points.network), placement.place(classifier.network), rule)

    @property
    def placement(self) -> Placement:
        """The device that it reads on, and the precision."""
        return Placement.like(self._networks[0])

    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of `expressions`."""
        return self.classes

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _process=os.getpid())

    def _check_process(self) -> None:
        if self._process != os.getpid():
            raise ConfigError(
                "a FaceReader cannot be used after a fork; create it in the new process, or start processes by spawn"
            )

    def read_crops(self, images: Crops) -> CropReadings:
        """Keypoints, their standard deviations, and probabilities of crops, of any size, in their order.

        Raises:
            ImageError: a crop is not gray, uint8 (H, W).
            ConfigError: the reader is used after a fork.
        """
        self._check_process()
        images = check_crops(images)
        if not images:
            none = np.zeros((0, len(KEYPOINTS), 2), np.float32)
            nothing = np.zeros((0, len(self.classes)), np.float32)
            emotions = nothing[:, : self._networks[1].spec.class_set.emotions]
            return CropReadings(none, emotions, none, nothing, nothing, self.classes)
        points, emotion = self._networks
        keypoints, deviations, probabilities, expressions = self._batches.run(
            lambda crops: (*points.uncertainty(crops), *emotion.classified(crops)), images, _crops
        )
        bounds = self.rule.bounds(expressions)
        return CropReadings(keypoints, probabilities, deviations, expressions, bounds, self.classes)

    def read(self, photo: Source | Photo) -> list[FaceReading]:
        """Detects and reads the faces of a photo, from left to right.

        Raises:
            ImageError: the photo cannot be decoded.
            NoFaceError: it shows no face.
            ConfigError: the reader is used after a fork.
        """
        self._check_process()
        return read_photo(photo, self)


def _crops(images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
    return torch.from_numpy(np.stack([resize_to_crop(image) for image in images]))[:, None]
