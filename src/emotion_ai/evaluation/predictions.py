"""A network's answers for a whole dataset."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from emotion_ai.contract import FLIP, FRAME
from emotion_ai.models import FaceNetwork
from emotion_ai.training.batches import to_frames


def predict(
    network: FaceNetwork, images: NDArray[np.uint8], flip: bool = False, batch: int = 256, title: str = "predicting"
) -> NDArray[np.float32]:
    """Keypoints float32 (N, 15, 2) or probabilities float32 (N, 5) of images uint8 (N, H, W).

    Args:
        flip: averages the answers for the face and its mirror image.
    """
    device = next(network.parameters()).device
    starts: Iterable[int] = range(0, len(images), batch)
    console = Console(stderr=True)
    answers = []
    with torch.inference_mode():
        for start in track(starts, title, console=console, transient=True, disable=not console.is_terminal):
            frames = to_frames(torch.from_numpy(images[start : start + batch]).to(device))
            answer = network(frames)
            if flip:
                answer = (answer + _unflipped(network, network(frames.flip(-1)))) / 2
            answers.append(answer.cpu().numpy())
    return np.concatenate(answers)


def _unflipped(network: FaceNetwork, answer: torch.Tensor) -> torch.Tensor:
    if network.task == "emotion":
        return answer
    mirrored = torch.stack([FRAME - 1 - answer[..., 0], answer[..., 1]], -1)
    return mirrored[:, list(FLIP)]
