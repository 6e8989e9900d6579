"""Coverage of the predicted keypoint regions: the share of true points within them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, norm

from emotion_ai.evaluation.statistics import Estimate, Units, bootstrap

LEVELS = (0.68, 0.95)
_CURVE = np.linspace(0.05, 0.99, 20)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LevelCoverage:
    """The share of coordinates or points ("kind") within their regions of a level."""

    kind: str
    level: float
    share: Estimate


@dataclass(frozen=True)
class Coverage:
    """Errors relative to predicted standard deviations.

    A coordinate's interval is that of a normal distribution. A point's region is an ellipse along x and y, in which the
    squared Mahalanobis radius is at most the quantile of chi squared with two degrees of freedom.

    Attributes:
        offsets: float (N, 15, 2), predicted minus true, in pixels; NaN where not annotated.
        deviations: float (N, 15, 2), standard deviations in pixels, positive.
    """

    offsets: NDArray[np.floating]
    deviations: NDArray[np.floating]

    @property
    def coordinate_levels(self) -> Floats:
        """The smallest level whose interval covers the true coordinate, float (N, 30), NaN where not annotated."""
        levels: Floats = 2 * norm.cdf(np.abs(self.offsets / self.deviations)).reshape(len(self.offsets), -1) - 1
        return levels

    @property
    def point_levels(self) -> Floats:
        """The smallest level whose ellipse covers the true point, float (N, 15), NaN where not annotated."""
        levels: Floats = chi2.cdf(((self.offsets / self.deviations) ** 2).sum(2), 2)
        return levels

    def shares(self, seed: int, units: Units | None = None) -> list[LevelCoverage]:
        """The coverage of the 68 % and 95 % regions, with bootstrap intervals over `units`, by default faces."""
        return [
            LevelCoverage(kind, level, _share(values, level, seed, units or Units.faces(len(values))))
            for kind, values in self._levels.items()
            for level in LEVELS
        ]

    def curves(self) -> dict[str, tuple[Floats, Floats]]:
        """Levels and the coverage of each, float (20,), for coordinates and points."""
        return {
            kind: (_CURVE, np.array([(values[~np.isnan(values)] <= level).mean() for level in _CURVE]))
            for kind, values in self._levels.items()
        }

    @property
    def _levels(self) -> dict[str, Floats]:
        return {"coordinates": self.coordinate_levels, "points": self.point_levels}


def _share(values: Floats, level: float, seed: int, units: Units) -> Estimate:
    inside, known = (values <= level).sum(1), (~np.isnan(values)).sum(1)  # for each face: NaN is never within
    return bootstrap(lambda rows: float(inside[rows].sum() / known[rows].sum()), units, seed)
