"""Calibration of probabilities and standard deviations: one number each, fitted on held-out faces."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.model_selection import KFold

from emotion_ai.errors import DataError
from emotion_ai.evaluation.metrics import EmotionScores

FOLDS = 5
"""Folds of cross-fitting."""
_WITHIN_ONE = 0.6827  # share of a normal distribution within one standard deviation
_RANGE = (0.05, 20.0)  # of the temperature: if every face is correct the likelihood has no minimum


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """The temperature T that minimises the mean negative log-likelihood of softmax(logits / T).

    Temperature scaling of Guo et al. 2017 (arXiv:1706.04599), section 4.2; it never changes the predicted class.

    Args:
        logits: float (N, K).
        labels: int64 (N,), true classes.

    Raises:
        DataError: no faces, or logits that are not finite.
    """
    if len(labels) == 0 or not np.isfinite(logits).all():
        raise DataError("fitting a temperature needs at least one face, and finite logits for all; give more data")
    wide, rows = np.asarray(logits, np.float64), np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(wide / np.exp(log_temperature), axis=1)[rows, labels].mean())

    return float(np.exp(minimize_scalar(loss, bounds=tuple(np.log(_RANGE)), method="bounded").x))


def cross_fitted_error(
    logits: NDArray[np.floating], labels: NDArray[np.int64], folds: int = FOLDS, seed: int = 0
) -> float:
    """Expected calibration error, each fold's temperature fitted on the other folds.

    Args:
        logits: float (N, K).
        labels: int64 (N,), true classes.

    Raises:
        DataError: fewer faces than folds, or logits that are not finite.
    """
    if len(labels) < folds:
        raise DataError(f"{folds} folds need at least {folds} faces, got {len(labels)}; give more faces or fewer folds")
    probabilities = np.empty(logits.shape, np.float32)
    for others, held_out in KFold(folds, shuffle=True, random_state=seed).split(logits):
        temperature = fit_temperature(logits[others], labels[others])
        probabilities[held_out] = softmax(np.asarray(logits[held_out], np.float64) / temperature, axis=1)
    return EmotionScores(probabilities, labels).calibration_error


def fit_deviation_scale(offsets: NDArray[np.floating], deviations: NDArray[np.floating]) -> float:
    """The factor for `deviations` so that 68.27 % of the errors lie within one standard deviation.

    Args:
        offsets: float (N, 15, 2), predicted minus true, in pixels; NaN where not annotated.
        deviations: float (N, 15, 2), standard deviations in pixels, positive.

    Raises:
        DataError: no annotated point, or a standard deviation there that is not positive.
    """
    known = ~np.isnan(offsets)
    if not known.any() or not (deviations[known] > 0).all():
        raise DataError("scaling standard deviations needs annotated points, all with positive ones; give more data")
    return float(np.quantile(np.abs(offsets[known]) / deviations[known], _WITHIN_ONE))
