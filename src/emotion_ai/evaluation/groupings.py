"""Groupings of faces: by the columns of a slices file, or by numbers such as the yaw."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from emotion_ai.contract import KEYPOINTS
from emotion_ai.data.dataset import FaceDataset
from emotion_ai.errors import DataError
from emotion_ai.evaluation.side_tables import FaceRows, Texts, read_side_table
from emotion_ai.vision.pose import fit_pose
from emotion_ai.vision.quality import measure_quality

MAX_GROUPS = 50
"""Groups that a column may have; a column of numbers with more values is cut into three groups of similar size."""

_SHARES = (1 / 3, 2 / 3)
_YAWS = (15.0, 30.0, 45.0)  # degrees
_LEFT, _RIGHT = "left_eye_outer_corner", "right_eye_outer_corner"


@dataclass(frozen=True)
class Grouping:
    """Faces grouped by one column.

    Attributes:
        column: its name.
        names: of the groups, in order.
        codes: int64 (N,), each face's index in `names`; -1 for a face in no group.
    """

    column: str
    names: tuple[str, ...]
    codes: NDArray[np.int64]

    @classmethod
    def of_texts(cls, column: str, values: Texts) -> Self:
        """Equal texts form a group; an empty one is none. Groups are sorted, by number if all are numbers."""
        names = sorted(set(values.tolist()) - {""})
        if (numbers := _numbers(np.array(names))) is not None:
            names = [names[place] for place in np.argsort(numbers, kind="stable")]
        place = {name: index for index, name in enumerate(names)}
        return cls(column, tuple(names), np.array([place.get(value, -1) for value in values.tolist()], np.int64))

    @classmethod
    def of_numbers(cls, column: str, values: NDArray[np.floating], edges: Sequence[float] | None = None) -> Self:
        """Numbers up to each edge, and above the last; NaN is in no group.

        Args:
            values: float (N,).
            edges: ascending; by default those that cut the values into three groups of similar size.
        """
        known = values[~np.isnan(values)]
        if edges is None:
            inner = np.unique(np.quantile(known, _SHARES, method="inverted_cdf")) if len(known) else np.zeros(0)
            edges = [float(edge) for edge in inner if edge < known.max()]
        texts = [f"{edge:.3g}" for edge in edges]
        between = [f"{low} to {high}" for low, high in zip(texts, texts[1:], strict=False)]
        names = [f"up to {texts[0]}", *between, f"above {texts[-1]}"] if texts else ["all"]
        codes = np.searchsorted(np.array(edges, np.float64), values)
        return cls(column, tuple(names), np.where(np.isnan(values), -1, codes).astype(np.int64))

    def within(self, rows: NDArray[np.bool_]) -> Self:
        """The grouping of some faces, bool (N,); the others are in no group."""
        return replace(self, codes=np.where(rows, self.codes, -1))

    def rows(self, index: int) -> NDArray[np.int64]:
        """The row numbers of a group's faces."""
        return np.flatnonzero(self.codes == index)

    def sizes(self) -> list[int]:
        """The number of faces in each group."""
        return [len(self.rows(index)) for index in range(len(self.names))]


def default_groupings(faces: FaceDataset) -> list[Grouping]:
    """How faces are grouped without a slices file: by sharpness and brightness; for keypoints also by yaw and size.

    Yaw and size are those of fully annotated points; size is the distance of the outer eye corners in the crop.
    """
    qualities = [measure_quality(image) for image in faces.images]
    found = [
        Grouping.of_numbers("sharpness", np.array([quality.sharpness for quality in qualities])),
        Grouping.of_numbers("brightness", np.array([quality.brightness for quality in qualities])),
    ]
    if faces.task == "emotion":
        return found
    yaw = np.array([abs(fit_pose(points).yaw) for points in faces.points])
    apart = np.hypot(*(faces.points[:, KEYPOINTS.index(_LEFT)] - faces.points[:, KEYPOINTS.index(_RIGHT)]).T)
    by_yaw = Grouping.of_numbers("yaw to either side, degrees", yaw, _YAWS)
    return [by_yaw, *found, Grouping.of_numbers("distance of the outer eye corners, pixels", apart)]


def read_groupings(path: Path, faces: FaceRows) -> list[Grouping]:
    """The columns of a slices file.

    Raises:
        DataError: the file does not fit the faces, or a column has no group, or too many.
    """
    found = []
    for name, values in read_side_table(path, faces).items():
        grouping = Grouping.of_texts(name, values)
        if not grouping.names:
            raise DataError(f"{path}, column {name}: empty for all {len(values):,} evaluated faces; fill or remove it")
        if len(grouping.names) > MAX_GROUPS:
            if (numbers := _numbers(values)) is None:
                raise DataError(
                    f"{path}, column {name}: has {len(grouping.names):,} different values, at most {MAX_GROUPS} can be "
                    "groups; merge some, or remove the column"
                )
            grouping = Grouping.of_numbers(name, numbers)
        found.append(grouping)
    return found


def _numbers(values: Texts) -> NDArray[np.float64] | None:
    """Finite numbers, NaN for an empty text; None if a text is no number."""
    try:
        numbers = np.array([float(value) if value else np.nan for value in values.tolist()])
    except ValueError:
        return None
    return None if np.isinf(numbers).any() else numbers
