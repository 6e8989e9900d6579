"""Answers as rows of Parquet files: one row per face, or one for a request without a face.

The same rows are the log of a reader and the reference that a published version carries. Needs the extra [record].
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from emotion_ai.class_set import UNCERTAIN
from emotion_ai.contract import CROP_SIZE, EMOTIONS
from emotion_ai.errors import NoFaceError
from emotion_ai.extras import optional_imports
from emotion_ai.files import atomic_path
from emotion_ai.inference.results import CropReadings, FaceReading
from emotion_ai.vision.crops import crop
from emotion_ai.vision.photo import UNNAMED, Photo, Source, encode_png, load_photo
from emotion_ai.vision.quality import UNKNOWN_QUALITY, measure_quality

with optional_imports():
    import pyarrow as pa
    import pyarrow.parquet as pq

PLACE = ("left", "top", "size", "roll", "yaw")
"""Of a crop in the photo, in pixels and degrees, and the yaw of the head."""

QUALITY = ("brightness", "contrast", "sharpness")
"""Measures of a crop's pixels."""

_MAX_TEXT = 1000
_LISTS = ("probabilities", "expressions", "deviations")

SCHEMA = pa.schema(
    [
        ("time", pa.timestamp("us", "UTC")),
        ("source", pa.string()),
        ("model", pa.string()),
        ("version", pa.int64()),
        ("label", pa.string()),
        ("face", pa.int32()),
        *((name, pa.float32()) for name in (*PLACE, *QUALITY)),
        ("emotion", pa.string()),
        ("confidence", pa.float32()),
        ("uncertain_below", pa.float32()),
        ("verdict", pa.string()),
        *((name, pa.list_(pa.float32())) for name in _LISTS),
        ("latency_ms", pa.float32()),
        ("requests_ms", pa.float32()),
        ("error", pa.string()),
        ("crop", pa.binary()),
    ],
    metadata={"emotion_ai": "answers 1"},
)
"""Columns of a log; what a model or a request does not have is null."""


@dataclass(frozen=True)
class Origin:
    """Who answers: the served model, its version or label as requested, and the photo if it has a name."""

    model: str | None = None
    version: int | None = None
    label: str | None = None
    source: str | None = None


@dataclass(frozen=True, eq=False)
class FaceAnswers:
    """What a model returned for N faces; float32 arrays, NaN or None for what it does not have.

    Attributes:
        places: (N, 5), as `PLACE`; NaN, but for the size, without a photo.
        quality: (N, 3), as `QUALITY`; None if it is yet to be measured, or cannot be.
        probabilities: (N, 5), or (N, K) of a network of other classes.
        uncertain_below: (N,), the thresholds of confidence; 0 for none.
        expressions: (N, K).
        deviations: (N, 15, 2), standard deviations of the keypoints in pixels of the 96x96 crop.
        classes: names of the `expressions`, or of the `probabilities` without them.
        verdicts: where more than the threshold decides.
        images: crops, uint8 (H, W) each, to measure the quality; None where it is not.
        crops: PNG files, where they are kept.
    """

    places: NDArray[np.float32]
    quality: NDArray[np.float32] | None
    probabilities: NDArray[np.float32]
    uncertain_below: NDArray[np.float32]
    expressions: NDArray[np.float32] | None = None
    deviations: NDArray[np.float32] | None = None
    classes: tuple[str, ...] = EMOTIONS
    verdicts: Sequence[str | None] | None = None
    images: Sequence[NDArray[np.uint8] | None] | None = None
    crops: Sequence[bytes] | None = None

    def __len__(self) -> int:
        return len(self.probabilities)

    @classmethod
    def of_photo(cls, faces: Sequence[FaceReading], crops: Sequence[bytes] | None = None) -> Self | None:
        """The faces of a photo; None without faces."""
        if not faces:
            return None
        places = [(face.box.left, face.box.top, face.box.size, face.box.roll, face.yaw) for face in faces]
        sizes = np.array([face.box.size for face in faces], np.float32)
        qualities = [face.quality or UNKNOWN_QUALITY for face in faces]
        deviations = [face.deviations for face in faces if face.deviations is not None]
        return cls(
            places=np.array(places, np.float32),
            quality=np.array([[getattr(quality, name) for name in QUALITY] for quality in qualities], np.float32),
            probabilities=np.stack([face.probabilities for face in faces]),
            uncertain_below=np.array([face.uncertain_below for face in faces], np.float32),
            expressions=None if faces[0].expressions is None else np.stack([face.over_classes for face in faces]),
            classes=faces[0].classes,
            verdicts=[face.verdict for face in faces],
            deviations=np.stack(deviations) * (np.float32(CROP_SIZE) / sizes[:, None, None]) if deviations else None,
            crops=crops,
        )

    @classmethod
    def of_crops(
        cls,
        readings: CropReadings,
        images: Sequence[NDArray[np.uint8]] | None,
        files: Sequence[bytes] | None = None,
    ) -> Self | None:
        """Crops without a photo, uint8 (H, W) each; None without crops. `files` are kept."""
        count = len(readings.probabilities)
        if not count:
            return None
        places = np.full((count, len(PLACE)), np.nan, np.float32)
        if images is not None:
            places[:, PLACE.index("size")] = [min(image.shape) for image in images]
        return cls(
            places=places,
            quality=None,
            images=None if images is None else [image.copy() for image in images],
            probabilities=readings.probabilities.copy(),  # whoever gets the readings may change them
            uncertain_below=np.array([readings.threshold(row) for row in range(count)], np.float32),
            expressions=None if readings.expressions is None else readings.expressions.copy(),
            classes=readings.classes,
            deviations=None if readings.deviations is None else readings.deviations.copy(),
            crops=files,
        )


@dataclass(frozen=True, eq=False)
class Answer:
    """The outcome of one request.

    Attributes:
        origin: who answered.
        time: its start, in seconds since the epoch.
        latency: seconds, with everything.
        requests: seconds of the requests to a server, retries included.
        faces: what was returned; None for a photo without a face and after an error.
        error: why it failed.
    """

    origin: Origin
    time: float
    latency: float
    requests: float | None = None
    faces: FaceAnswers | None = None
    error: str | None = None

    def __len__(self) -> int:
        """Its rows."""
        return max(len(self.faces or ()), 1)

    def by_version(self, version: int | None) -> "Answer":
        """The same answer, given by a version."""
        return replace(self, origin=replace(self.origin, version=version))


def source_name(source: Source | Photo | None) -> str | None:
    """The path of a photo that is a file."""
    if isinstance(source, Photo):
        return None if source.name == UNNAMED else source.name
    return str(source) if isinstance(source, str | os.PathLike) else None


def crop_files(faces: Sequence[FaceReading], source: Source | Photo) -> list[bytes]:
    """The crops of a photo's faces as PNG files."""
    photo = source if isinstance(source, Photo) else load_photo(source)
    factor = 1.0 if photo is source else 1 / photo.scale
    return [encode_png(crop(photo.gray, face.scaled(factor).box)) for face in faces]


def failure(error: BaseException | None) -> str | None:
    """Why a request failed; None if it did not, as for a photo without a face."""
    return None if error is None or isinstance(error, NoFaceError) else str(error) or type(error).__name__


def without_images(answer: Answer) -> Answer:
    """The same answer, whose crops are not measured."""
    return replace(answer, faces=replace(answer.faces, images=None)) if answer.faces else answer


def thinned(answers: Sequence[Answer], count: int) -> list[Answer]:
    """The same answers with at most so many crops to measure, spread evenly over all of them."""
    waiting = sum(len(answer.faces.images or ()) for answer in answers if answer.faces)
    if waiting <= count:
        return list(answers)
    chosen = set(np.linspace(0, waiting - 1, count).astype(int).tolist())
    found, position = list[Answer](), 0
    for answer in answers:
        if answer.faces and answer.faces.images:
            images = [image if position + i in chosen else None for i, image in enumerate(answer.faces.images)]
            position += len(images)
            answer = replace(answer, faces=replace(answer.faces, images=images))
        found.append(answer)
    return found


def to_table(answers: Sequence[Answer]) -> pa.Table:
    """Answers as rows of `SCHEMA`, by time."""
    alike: dict[Any, list[Answer]] = {}
    for answer in answers:  # those with the same outputs are one table, without a loop over rows
        alike.setdefault(_outputs(answer.faces) if answer.faces else None, []).append(answer)
    tables = [_table(group) for group in alike.values()]
    return pa.concat_tables(tables).sort_by("time") if tables else SCHEMA.empty_table()


def write_rows(table: pa.Table, path: Path, *, sync: bool = False) -> None:
    """Writes rows as one Parquet file, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_path(path, sync=sync) as partial:
        words = [field.name for field in table.schema if pa.types.is_string(field.type)]  # numbers rarely repeat
        pq.write_table(table, partial, compression="zstd", use_dictionary=words)


def _outputs(found: FaceAnswers) -> tuple[Any, ...]:
    """What a model returned, apart from the values."""
    shapes = tuple(np.shape(getattr(found, name))[1:] for name in _LISTS)
    there = (found.verdicts is not None, found.crops is not None, bool(np.isnan(found.probabilities).any()))
    return shapes, found.classes, there


def _table(answers: Sequence[Answer]) -> pa.Table:
    """Rows of answers that all have the same outputs."""
    counts = [len(answer) for answer in answers]

    def shared(values: Iterable[Any]) -> pa.Array:
        return pa.array(list(values)).take(rows)

    rows = pa.array(np.repeat(np.arange(len(answers)), counts))
    columns: dict[str, Any] = {
        name: shared(getattr(answer.origin, name) for answer in answers) for name in ("model", "version", "label")
    }
    columns["source"] = shared(_text(answer.origin.source) for answer in answers)
    columns["time"] = shared(round(1e6 * answer.time) for answer in answers)
    columns["latency_ms"] = shared(1000 * answer.latency for answer in answers)
    columns["requests_ms"] = shared(None if answer.requests is None else 1000 * answer.requests for answer in answers)
    columns["error"] = shared(_text(answer.error) for answer in answers)
    if faces := [answer.faces for answer in answers if answer.faces]:
        columns["face"] = np.concatenate([np.arange(1, count + 1) for count in counts])
        columns |= _face_columns(faces)
    length = sum(counts)
    arrays = [columns[f.name] if f.name in columns else pa.nulls(length, f.type) for f in SCHEMA]
    arrays = [pa.array(array, from_pandas=True) if isinstance(array, np.ndarray) else array for array in arrays]
    return pa.Table.from_arrays(
        [array.cast(field.type) for array, field in zip(arrays, SCHEMA, strict=True)], schema=SCHEMA
    )


def _face_columns(faces: Sequence[FaceAnswers]) -> dict[str, Any]:
    def joined(name: str) -> NDArray[np.float32]:
        return np.concatenate([getattr(found, name) for found in faces])

    columns: dict[str, Any] = dict(zip(PLACE, joined("places").T, strict=True))
    columns |= dict(zip(QUALITY, np.concatenate([_quality(found) for found in faces]).T, strict=True))
    for name in _LISTS:
        if getattr(faces[0], name) is not None and not np.isnan(values := joined(name)).any():
            lists = pa.FixedSizeListArray.from_arrays(values.ravel().astype(np.float32), values[0].size)
            columns[name] = lists.cast(pa.list_(pa.float32()))
    thresholds = joined("uncertain_below")
    columns["uncertain_below"] = thresholds
    if faces[0].crops is not None:
        columns["crop"] = pa.array([file for found in faces for file in found.crops or ()], pa.binary())
    scores = joined("probabilities" if faces[0].expressions is None else "expressions")
    if not np.isnan(scores).any():  # NaN of a model without emotions
        confidence = scores.max(1)
        names = np.array(faces[0].classes, object)[scores.argmax(1)]
        columns["confidence"] = confidence
        columns["emotion"] = pa.array(names, pa.string())
        verdicts: list[str | None] = [verdict for found in faces for verdict in found.verdicts or ()]
        if faces[0].verdicts is None:
            verdicts = np.where(confidence < thresholds, UNCERTAIN, names).tolist()
        columns["verdict"] = pa.array(verdicts, pa.string())
    return columns


def _quality(found: FaceAnswers) -> NDArray[np.float32]:
    if found.quality is not None:
        return found.quality
    if found.images is None:
        return np.full((len(found), len(QUALITY)), np.nan, np.float32)
    measured = [UNKNOWN_QUALITY if image is None else measure_quality(image) for image in found.images]
    return np.array([[getattr(quality, name) for name in QUALITY] for quality in measured], np.float32)


def _text(text: str | None) -> str | None:
    """Text that UTF-8 can hold, not too long; a byte of a file name that is not UTF-8 becomes `\\udcXX`."""
    return None if text is None else text[:_MAX_TEXT].encode("utf-8", "backslashreplace").decode()
