"""Do the keypoints' standard deviations hold the errors that they say? Shares of the truth within their regions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, norm

from emotion_ai.evaluation.statistics import Estimate, bootstrap

LEVELS = (0.68, 0.95)
_CURVE = np.linspace(0.05, 0.99, 20)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Coverage:
    """Errors in units of what the network says of them.

    Intervals of a coordinate are those of a normal distribution; regions of a point are ellipses along x and y, within
    which the squared Mahalanobis radius is at most the quantile of chi squared with two degrees of freedom.

    Attributes:
        offsets: float (N, 15, 2), predicted minus true, pixels; NaN where not annotated.
        deviations: float (N, 15, 2), standard deviations, pixels, positive.
    """

    offsets: NDArray[np.floating]
    deviations: NDArray[np.floating]

    @property
    def coordinate_levels(self) -> Floats:
        """The smallest level whose interval holds the truth, float (N, 30), NaN where not annotated."""
        return 2 * norm.cdf(np.abs(self.offsets / self.deviations)).reshape(len(self.offsets), -1) - 1

    @property
    def point_levels(self) -> Floats:
        """The smallest level whose ellipse holds the true point, float (N, 15), NaN where not annotated."""
        return chi2.cdf(((self.offsets / self.deviations) ** 2).sum(2), 2)

    def shares(self, seed: int) -> dict[str, Estimate]:
        """Shares found within the regions meant to hold 68 % and 95 %, with bootstrap intervals over faces."""
        levels = {"coordinates": self.coordinate_levels, "points": self.point_levels}
        return {
            f"{what} within {level:.0%}": _share(values, level, seed)
            for what, values in levels.items()
            for level in LEVELS
        }

    def curves(self) -> dict[str, tuple[Floats, Floats]]:
        """Shares meant and found, float (20,) each, of coordinates and points."""
        levels = {"coordinates": self.coordinate_levels, "points": self.point_levels}
        return {
            what: (_CURVE, np.array([(values[~np.isnan(values)] <= level).mean() for level in _CURVE]))
            for what, values in levels.items()
        }


def _share(values: Floats, level: float, seed: int) -> Estimate:
    inside, known = (values <= level).sum(1), (~np.isnan(values)).sum(1)  # of each face: NaN is never within
    return bootstrap(lambda rows: float(inside[rows].sum() / known[rows].sum()), len(values), seed)
