"""The reading of faces by PyTorch itself, without a server; needs the extra [train]."""

from pathlib import Path
from typing import Self

import numpy as np

from emotion_ai.contract import EMOTIONS, KEYPOINTS
from emotion_ai.errors import MissingExtraError
from emotion_ai.framing import to_frame
from emotion_ai.photo import Source
from emotion_ai.readings import CropReadings, Crops, FaceReading, read_photo

try:
    import torch

    from emotion_ai.models import FaceNetwork, load_network
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f"reading faces without a server needs {error.name}: pip install 'emotion-ai[train]', or give a server"
    ) from error

_BATCH = 64


class FaceReader:
    """Reads faces with two networks, on the CPU unless they were moved."""

    def __init__(self, keypoints: FaceNetwork, emotion: FaceNetwork) -> None:
        self._networks = (keypoints, emotion)

    @classmethod
    def bundled(cls) -> Self:
        """With the weights that come with the package."""
        return cls.load("bundled", "bundled")

    @classmethod
    def load(cls, keypoints: str | Path, emotion: str | Path) -> Self:
        """With checkpoints of one's own.

        Raises:
            CheckpointError: a file that cannot be used.
        """
        return cls(load_network(keypoints, "keypoints")[0], load_network(emotion, "emotion")[0])

    def read_crops(self, images: Crops) -> CropReadings:
        """Keypoints and probabilities of faces that are already cropped, of any size; order is kept."""
        if len(images) == 0:
            return CropReadings(np.zeros((0, len(KEYPOINTS), 2), np.float32), np.zeros((0, len(EMOTIONS)), np.float32))
        frames = torch.from_numpy(np.stack([to_frame(image) for image in images]))[:, None]
        with torch.inference_mode():
            answers = [
                torch.cat([network(part) for part in torch.split(frames, _BATCH)]).numpy() for network in self._networks
            ]
        return CropReadings(*answers)

    def read(self, photo: Source) -> list[FaceReading]:
        """The faces of a photograph, from left to right.

        Raises:
            ImageError: the picture cannot be read.
            NoFaceError: it shows no face.
        """
        return read_photo(photo, self.read_crops)
