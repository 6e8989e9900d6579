"""What the evaluation of either task returns."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from emotion_ai.evaluation.tables import ReportTable

GRID_FACES = 24
"""Faces in a figure of examples."""
ROW_FACES = 6
"""Faces in a row of explained examples."""


@dataclass(frozen=True)
class TaskResults:
    """Predictions, keypoints float32 (N, 15, 2) or probabilities float32 (N, K), with their tables and figures."""

    predictions: NDArray[np.float32]
    tables: tuple[ReportTable, ...]
    figures: dict[str, Figure]
