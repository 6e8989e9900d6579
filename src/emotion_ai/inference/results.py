"""What both readers return: keypoints and probabilities of crops, and of the faces in a photo."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from emotion_ai.class_set import UNCERTAIN, ClassSet
from emotion_ai.contract import EMOTIONS, KEYPOINTS
from emotion_ai.errors import ConfigError, ImageError
from emotion_ai.inference.verdict import decide
from emotion_ai.vision.crops import Box, check_gray, describe
from emotion_ai.vision.photo import Photo, Source
from emotion_ai.vision.pose import TURNED, UNKNOWN_POSE, Pose
from emotion_ai.vision.quality import FLAGS, UNKNOWN_QUALITY, FaceQuality, Flag

if TYPE_CHECKING:
    import pandas as pd

Crops = Sequence[NDArray[np.uint8]] | NDArray[np.uint8]
"""Gray faces, already cropped: uint8 (N, H, W), or N arrays (H, W) of any size."""

DOUBTFUL: frozenset[Flag] = frozenset({"blurred", "dark", "turned"})
"""Flags that make a verdict uncertain."""


_VERDICT = ("emotion", "confidence", "uncertain", "score")
_PLACE = ("box_left", "box_top", "box_size", *(f"{name}_{axis}" for name in KEYPOINTS for axis in "xy"))
_MEASURED = ("box_roll", "roll", "yaw", "sharpness", "brightness", "contrast", "quality")


def columns(classes: Sequence[str] = EMOTIONS) -> tuple[str, ...]:
    """Columns of a table of faces: `score` is the detector's; box and points are in pixels of the photo.

    `quality` has the flags, joined by semicolons. Probabilities of the five emotions have their names; where a network
    has more classes, those of all of them follow, such as `expression_Neutral`. So is a class called that is named like
    another column.
    """
    emotions = ClassSet.of(classes).emotions
    taken = {*_VERDICT, *_PLACE, *_MEASURED, *("photo", "source", "frame", "seconds", "track", "face", "error")}
    return (
        *_VERDICT,
        *(f"expression_{name}" if name.casefold() in taken else name for name in classes[:emotions]),
        *(f"expression_{name}" for name in classes if emotions < len(classes)),
        *_PLACE,
        *_MEASURED,
    )


COLUMNS = columns()
"""Columns of a table of faces read by a network of the five emotions."""


@dataclass(frozen=True, eq=False)
class CropReadings:
    """Keypoints and probabilities of N crops.

    Attributes:
        keypoints: float32 (N, 15, 2), pixels of the 96x96 crop; NaN from a model without keypoints.
        probabilities: float32 (N, 5), in the order of `EMOTIONS`, given that it is one of these; (N, K) from a network
            of other classes; NaN from a model without emotions.
        deviations: float32 (N, 15, 2), standard deviations of the keypoints' coordinates in pixels of the crop; None
            from a signature without them.
        expressions: float32 (N, K), over all classes of the network; None from a signature without them.
        uncertain_below: float32 (N, K), for each class the confidence below which it counts as uncertain; NaN where the
            version that answered names no thresholds, None if none does.
        classes: names of the K classes, in the order of `expressions`.
    """

    keypoints: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    deviations: NDArray[np.float32] | None = None
    expressions: NDArray[np.float32] | None = None
    uncertain_below: NDArray[np.float32] | None = None
    classes: tuple[str, ...] = EMOTIONS

    def replaced(self, rows: Sequence[int], others: "CropReadings") -> "CropReadings":
        """A copy in which the given rows are those of `others`, in order; what either lacks is None.

        Both must have the same classes.
        """
        found: dict[str, Any] = {"classes": self.classes}
        for field in fields(self):
            mine, new = getattr(self, field.name), getattr(others, field.name)
            if isinstance(mine, np.ndarray) and new is not None:
                found[field.name] = mine.copy()
                found[field.name][rows] = new
        return CropReadings(**found)

    def part(self, rows: slice) -> "CropReadings":
        """The readings of some of the crops."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        found: dict[str, Any] = {name: v[rows] if isinstance(v, np.ndarray) else v for name, v in values.items()}
        return CropReadings(**found)

    @property
    def over_classes(self) -> NDArray[np.float32]:
        """Probabilities of all classes that the model names, float32 (N, K)."""
        return self.probabilities if self.expressions is None else self.expressions

    def class_thresholds(self, row: int) -> NDArray[np.float32] | None:
        """The thresholds of one crop for each class; None without any."""
        own = None if self.uncertain_below is None else self.uncertain_below[row]
        return None if own is None or np.isnan(own).any() else own

    def threshold(self, row: int) -> float:
        """Confidence below which one crop's verdict is uncertain, that of its most probable class; 0 without any."""
        value = None if self.uncertain_below is None else self.uncertain_below[row, self.over_classes[row].argmax()]
        return 0.0 if value is None or np.isnan(value) else shortest_float(value)


class CropReader(Protocol):
    """Reads crops: `FaceReader` with PyTorch, `FaceClient` with a server."""

    def read_crops(self, images: Crops) -> CropReadings:
        """Keypoints and probabilities of crops, in their order."""
        ...


@dataclass(frozen=True, eq=False)
class FaceReading:
    """One face of a photo.

    Attributes:
        keypoints: float32 (15, 2), pixels of the 96x96 crop.
        probabilities: float32 (5,), in the order of `EMOTIONS`, given that it is one of these; (K,) from a network of
            other classes.
        box: where the crop lies, in pixels of the photo.
        points: float32 (15, 2), the keypoints in pixels of the photo.
        score: the detector's, 0 to 1.
        deviations: float32 (15, 2), standard deviations of the points' coordinates in pixels of the photo, or None.
        uncertain_below: confidence below which the verdict is uncertain, 0 to 1; with 0 for all classes each is named,
            whatever its flags.
        pose: how the head is turned, from the points.
        quality: of the crop.
        cut: whether the photo's edge cuts the face, or points lie beyond it.
        expressions: float32 (K,), over all classes; None from a signature without them.
        classes: names of the K classes, in the order of `expressions`.
        class_thresholds: float32 (K,), each class's own threshold, where the network has chosen them; None without.
    """

    keypoints: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    box: Box
    points: NDArray[np.float32]
    score: float
    deviations: NDArray[np.float32] | None = None
    uncertain_below: float = 0.0
    pose: Pose = UNKNOWN_POSE
    quality: FaceQuality | None = None
    cut: bool = False
    expressions: NDArray[np.float32] | None = None
    classes: tuple[str, ...] = EMOTIONS
    class_thresholds: NDArray[np.float32] | None = None

    def __repr__(self) -> str:
        return f"FaceReading({self.caption!r}, box={self.box}, score={self.score:.2f})"

    @property
    def over_classes(self) -> NDArray[np.float32]:
        """Probabilities of all classes that the model names, float32 (K,)."""
        return self.probabilities if self.expressions is None else self.expressions

    @property
    def by_class(self) -> dict[str, float]:
        """`over_classes` by name."""
        return dict(zip(self.classes, map(float, self.over_classes), strict=True))

    @property
    def emotion(self) -> str | None:
        """The most probable class, which may be Neutral; None from a model without emotions."""
        return None if np.isnan(self.over_classes).any() else self.classes[int(np.argmax(self.over_classes))]

    @property
    def confidence(self) -> float:
        """The probability of that class, among all that the model names."""
        return float(self.over_classes.max())

    @property
    def uncertain(self) -> bool:
        """Whether the confidence is below the threshold, or a flag says that the emotion cannot be trusted."""
        if self.emotion is None:
            return False
        return bool(decide(self.over_classes[None], self.uncertain_below)[0] < 0 or self.doubts)

    @property
    def roll(self) -> float:
        """Degrees by which the face is turned clockwise in the photo, -180 to 180, by its points or else its box."""
        return self.box.roll if math.isnan(self.pose.roll) else self.pose.roll

    @property
    def yaw(self) -> float:
        """Degrees by which the head looks to the right of the upright picture, -90 to 90; NaN without points."""
        return self.pose.yaw

    @property
    def flags(self) -> tuple[Flag, ...]:
        """What is wrong with the face, in the order of `FLAGS`: small, blurred, dark, turned, cut."""
        found = set(self.quality.flags if self.quality else ())
        if abs(self.yaw) > TURNED:
            found.add("turned")
        if self.cut:
            found.add("cut")
        return tuple(flag for flag in FLAGS if flag in found)

    @property
    def doubts(self) -> tuple[Flag, ...]:
        """The flags that make the verdict uncertain; none where no class has a threshold above 0."""
        bounds = [self.uncertain_below] if self.class_thresholds is None else self.class_thresholds
        return tuple(flag for flag in self.flags if flag in DOUBTFUL) if max(bounds) > 0 else ()

    @property
    def verdict(self) -> str | None:
        """The emotion, or "uncertain"."""
        return UNCERTAIN if self.uncertain else self.emotion

    @property
    def caption(self) -> str:
        """A short label: "Happy 83%", "uncertain", or "points" from a model without emotions."""
        if self.emotion is None:
            return "points"
        return UNCERTAIN if self.uncertain else f"{self.emotion} {self.confidence:.0%}"

    def with_probabilities(
        self, probabilities: NDArray[np.float32], expressions: NDArray[np.float32] | None
    ) -> "FaceReading":
        """The face with other probabilities, and the threshold of what is then its most probable class."""
        face = replace(self, probabilities=probabilities, expressions=expressions)
        if self.class_thresholds is None or np.isnan(face.over_classes).any():
            return face
        return replace(face, uncertain_below=shortest_float(self.class_thresholds[face.over_classes.argmax()]))

    def with_threshold(self, uncertain_below: float) -> "FaceReading":
        """The face with one threshold for all classes."""
        return replace(self, uncertain_below=uncertain_below, class_thresholds=None)

    def scaled(self, factor: float) -> "FaceReading":
        """The face in a photo `factor` times as large, pixel centres at integers."""
        return replace(
            self,
            box=self.box.scaled(factor),
            points=((self.points + 0.5) * factor - 0.5).astype(np.float32),
            deviations=None if self.deviations is None else self.deviations * np.float32(factor),
            quality=None if self.quality is None else replace(self.quality, size=self.quality.size * factor),
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON; None where the model has no such output."""
        record = {
            "emotion": self.emotion,
            "confidence": _plain(self.confidence, 4),
            "uncertain": self.uncertain,
            "verdict": self.verdict,
            "probabilities": {n: _plain(p, 4) for n, p in zip(self.classes, self.probabilities, strict=False)},
            "expressions": {n: _plain(p, 4) for n, p in self.by_class.items()},
            "box": {name: round(value, 2) for name, value in asdict(self.box).items()},
            "points": {n: [_plain(x, 2), _plain(y, 2)] for n, (x, y) in zip(KEYPOINTS, self.points, strict=True)},
            "score": _plain(self.score, 4),
            "roll": _plain(self.roll, 1),
            "yaw": _plain(self.yaw, 1),
            "flags": list(self.flags),
        }
        if self.quality is not None:
            record["quality"] = {name: _plain(value, 3) for name, value in asdict(self.quality).items()}
        if self.deviations is not None:
            pairs = zip(KEYPOINTS, self.deviations, strict=True)
            record["deviations"] = {n: [_plain(x, 2), _plain(y, 2)] for n, (x, y) in pairs}
        return record

    def as_row(self) -> dict[str, Any]:
        """One flat record with the columns of `columns(classes)`."""
        box = (self.box.left, self.box.top, self.box.size)
        more = self.over_classes if len(self.probabilities) < len(self.classes) else ()
        quality = self.quality or UNKNOWN_QUALITY
        measured = (quality.sharpness, quality.brightness, quality.contrast)
        angles = (self.box.roll, self.roll, self.yaw)
        numbers = (self.score, *self.probabilities, *more, *box, *self.points.ravel(), *angles, *measured)
        verdict = (self.emotion, self.confidence, self.uncertain)
        cells = (*verdict, *(float(number) for number in numbers), ";".join(self.flags))
        return dict(zip(columns(self.classes), cells, strict=True))

    def to_row(self) -> "pd.Series[Any]":
        """`as_row` as a pandas Series; needs pandas."""
        import pandas as pd

        return pd.Series(self.as_row())


class PhotoReader(CropReader, Protocol):
    """A `CropReader` that detects the faces of photos as well; both readers are."""

    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of `expressions`."""
        ...

    def read(self, photo: Source | Photo) -> list[FaceReading]:
        """The faces of a photo, from left to right."""
        ...


def check_crops(images: Crops) -> list[NDArray[np.uint8]]:
    """The crops one by one, unchanged; both readers take what this takes.

    Raises:
        ImageError: one of them is not gray, uint8 (H, W), or these are no crops at all.
    """
    single = isinstance(images, np.ndarray) and images.ndim in (0, 2) and images.size
    if single or not isinstance(images, Sequence | np.ndarray) or isinstance(images, str | bytes):
        raise ImageError(f"crops must be uint8 (N, H, W) or a list of arrays (H, W), got {describe(images)}")
    return [check_gray(image, f"crop {position}") for position, image in enumerate(images)]


def check_threshold(uncertain_below: float) -> float:
    """Returns a confidence threshold unchanged.

    Raises:
        ConfigError: it is not between 0 and 1.
    """
    if not 0 <= uncertain_below <= 1:
        raise ConfigError(f"`uncertain_below` must be between 0 and 1, got {uncertain_below:g}")
    return uncertain_below


def shortest_float(value: float | np.floating[Any]) -> float:
    """The shortest decimal number that float32 keeps as this value: 0.55, not 0.550000011920929."""
    return float(str(np.float32(value)))


def _plain(value: float | np.floating[Any], digits: int) -> float | None:
    return None if np.isnan(value) else round(float(value), digits)
