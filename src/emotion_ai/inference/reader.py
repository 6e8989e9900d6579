"""The reading of faces by PyTorch itself, without a server; needs the extra [train]."""

from pathlib import Path
from typing import Self

import numpy as np

from emotion_ai.contract import EMOTIONS, KEYPOINTS
from emotion_ai.errors import MissingExtraError
from emotion_ai.inference.pipeline import read_photo
from emotion_ai.inference.results import CropReadings, Crops, FaceReading, check_threshold
from emotion_ai.vision.crops import resize_to_crop
from emotion_ai.vision.photo import Photo, Source

try:
    import torch

    from emotion_ai.models import FaceNetwork, load_network
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f"reading faces without a server needs {error.name}: pip install 'emotion-ai[train]', or give a server"
    ) from error

_BATCH = 64


class FaceReader:
    """Reads faces with two networks, on the CPU unless they were moved.

    Args:
        keypoints: a network for keypoints.
        emotion: a network for emotion.
        uncertain_below: confidence below which an emotion is called uncertain.

    Raises:
        ConfigError: `uncertain_below` is none from 0 to 1.
    """

    def __init__(self, keypoints: FaceNetwork, emotion: FaceNetwork, uncertain_below: float = 0.0) -> None:
        self._networks = (keypoints, emotion)
        self.uncertain_below = check_threshold(uncertain_below)

    @classmethod
    def bundled(cls, uncertain_below: float | None = None) -> Self:
        """With the weights that come with the package; `uncertain_below` as in `load`."""
        return cls.load("bundled", "bundled", uncertain_below)

    @classmethod
    def load(cls, keypoints: str | Path, emotion: str | Path, uncertain_below: float | None = None) -> Self:
        """With checkpoints of one's own.

        Args:
            keypoints: a checkpoint.
            emotion: a checkpoint.
            uncertain_below: None takes the one that was chosen for the emotion checkpoint; 0 where none was.

        Raises:
            CheckpointError: a file that cannot be used.
            ConfigError: `uncertain_below` is none from 0 to 1.
        """
        points, (classifier, record) = load_network(keypoints, "keypoints")[0], load_network(emotion, "emotion")
        if uncertain_below is None:
            uncertain_below = record.get("calibration", {}).get("uncertain_below", 0.0)
        return cls(points, classifier, uncertain_below)

    def read_crops(self, images: Crops) -> CropReadings:
        """Keypoints, probabilities and deviations of faces that are already cropped, of any size; order is kept."""
        if len(images) == 0:
            none = np.zeros((0, len(KEYPOINTS), 2), np.float32)
            return CropReadings(none, np.zeros((0, len(EMOTIONS)), np.float32), none)
        frames = torch.from_numpy(np.stack([resize_to_crop(image) for image in images]))[:, None]
        points, emotion = self._networks
        with torch.inference_mode():
            answers = [(*points.uncertainty(part), emotion(part)) for part in torch.split(frames, _BATCH)]
        keypoints, deviations, probabilities = (torch.cat(parts).numpy() for parts in zip(*answers, strict=True))
        return CropReadings(keypoints, probabilities, deviations)

    def read(self, photo: Source | Photo) -> list[FaceReading]:
        """The faces of a photograph, from left to right.

        Raises:
            ImageError: the picture cannot be read.
            NoFaceError: it shows no face.
        """
        return read_photo(photo, self, self.uncertain_below)
