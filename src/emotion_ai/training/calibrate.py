"""Calibration of probabilities and standard deviations on the validation split, after training."""

import numpy as np
import torch

from emotion_ai.data.batches import Batches
from emotion_ai.data.dataset import FaceDataset
from emotion_ai.evaluation.calibration import cross_fitted_error, fit_deviation_scale, fit_temperature
from emotion_ai.evaluation.metrics import EmotionScores
from emotion_ai.evaluation.verdicts import choose_rule
from emotion_ai.models import FaceNetwork

_BATCH_SIZE = 256


def calibrate(
    network: FaceNetwork, val: FaceDataset, confident_accuracy: float = 0.9, neutral_risk: float = 0.12
) -> dict[str, float]:
    """Folds the temperature, or the factor of the standard deviations, into the network's weights.

    Predicted classes and points do not change.

    Args:
        network: in evaluation mode.
        val: the validation split.
        confident_accuracy: accuracy on `val` of the emotions that are named.
        neutral_risk: share of neutral faces that may be named as an emotion.

    Returns:
        The fitted numbers, for the record. For emotion also the calibration error before and after (cross-fitted: each
        face is evaluated with a temperature fitted to the others), and the rule for verdicts, as by `choose_rule`.
        Where there are more classes than the five emotions, the probabilities of these alone have a temperature of
        their own, `emotion_temperature`.
    """
    batches = Batches(val, _BATCH_SIZE, next(network.parameters()).device, lambda: 0)
    if network.task == "keypoints":
        with torch.inference_mode():
            outputs = [network.uncertainty(images) for images, _, _ in batches]
        points, deviations = (torch.cat(part).cpu().numpy() for part in zip(*outputs, strict=True))
        factor = fit_deviation_scale(points - val.targets, deviations)
        network.deviations.scale(factor)
        return {"deviation_scale": factor}
    with torch.inference_mode():
        logits = torch.cat([network.scores(images) for images, _, _ in batches]).cpu().numpy()
    labels = val.targets.astype(np.int64)
    temperature = fit_temperature(logits, labels)
    network.head.apply_temperature(temperature)  # type: ignore[operator]
    probabilities, before = (torch.from_numpy(logits / t).softmax(1).numpy() for t in (temperature, 1.0))
    fitted = {
        "temperature": temperature,
        "calibration_error_before": EmotionScores(before, labels).calibration_error,
        "calibration_error_cross_fitted": cross_fitted_error(logits, labels),
    }
    classes = network.spec.class_set
    rows = labels < classes.emotions
    if classes.emotions < len(classes) and rows.any():
        emotions = logits[rows, : classes.emotions] / temperature
        network.calibrate_emotions(fit_temperature(emotions, labels[rows]))
        fitted |= {
            "emotion_temperature": network.spec.emotion_temperature,
            "emotion_calibration_error_cross_fitted": cross_fitted_error(emotions, labels[rows]),
        }
    return fitted | choose_rule(probabilities, labels, classes, confident_accuracy, neutral_risk)
