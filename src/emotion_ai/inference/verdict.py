"""The verdict on a face: its most probable class, or none that is sure enough."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def decide(probabilities: NDArray[np.float32], thresholds: ArrayLike) -> NDArray[np.int64]:
    """The most probable class of each face, int64 (N,); -1 where its probability is below its threshold: uncertain.

    Compared in float32, as thresholds are served.

    Args:
        probabilities: of all classes, float32 (N, K).
        thresholds: one, one for each class (K,), or these for each face (N, K).
    """
    best = probabilities.argmax(1)[:, None]
    bounds = np.broadcast_to(np.asarray(thresholds, np.float32), probabilities.shape)
    sure = ~(np.take_along_axis(probabilities, best, 1) < np.take_along_axis(bounds, best, 1))
    return np.where(sure, best, -1)[:, 0]
