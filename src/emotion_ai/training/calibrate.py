"""After training: probabilities and deviations are made to mean what they say, on the faces that choices use."""

import numpy as np
import torch

from emotion_ai.data.batches import Batches
from emotion_ai.data.dataset import FaceDataset
from emotion_ai.evaluation.abstention import choose_threshold
from emotion_ai.evaluation.calibration import cross_fitted_error, fit_deviation_scale, fit_temperature
from emotion_ai.evaluation.metrics import EmotionScores
from emotion_ai.models import FaceNetwork

_BATCH = 256
SURE = 0.9
"""Accuracy that the faces which are not called uncertain shall have."""


def calibrate(network: FaceNetwork, faces: FaceDataset) -> dict[str, float]:
    """Folds the temperature, or the deviations' scale, into the network's weights; answers stay the same otherwise.

    Args:
        network: in evaluation mode.
        faces: the `select` faces.

    Returns:
        For the record: the fitted numbers; for emotion also the calibration error before and after (cross-fitted, so
        that no face is judged by its own fit), and the confidence below which an emotion is called uncertain.
    """
    batches = Batches(faces, _BATCH, next(network.parameters()).device, lambda: 0)
    if network.task == "keypoints":
        with torch.inference_mode():
            answers = [network.uncertainty(images) for images, _, _ in batches]
        points, deviations = (torch.cat(part).cpu().numpy() for part in zip(*answers, strict=True))
        factor = fit_deviation_scale(points - faces.targets, deviations)
        network.deviations.scale(factor)
        return {"deviation_scale": factor}
    with torch.inference_mode():
        logits = torch.cat([network.scores(images) for images, _, _ in batches]).cpu().numpy()
    labels = faces.targets.astype(np.int64)
    temperature = fit_temperature(logits, labels)
    network.head.apply_temperature(temperature)  # type: ignore[operator]
    probabilities, before = (torch.from_numpy(logits / t).softmax(1).numpy() for t in (temperature, 1.0))
    return {
        "temperature": temperature,
        "calibration_error_before": EmotionScores(before, labels).calibration_error,
        "calibration_error_cross_fitted": cross_fitted_error(logits, labels),
        "uncertain_below": choose_threshold(probabilities, labels, SURE),
    }
