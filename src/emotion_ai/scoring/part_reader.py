"""Reads the pictures of a part, and writes its rows as one Parquet file."""

import json
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from emotion_ai.contract import EMOTIONS
from emotion_ai.errors import ConfigError, EmotionAIError, MissingExtraError, NoFaceError
from emotion_ai.extras import optional_imports
from emotion_ai.files import atomic_path
from emotion_ai.inference.pipeline import DetectedFace, detect_faces, read_each
from emotion_ai.inference.results import FaceReading, PhotoReader
from emotion_ai.inference.tables import Row, deviation_row
from emotion_ai.scoring.checksum import NO_CHECKSUM, write_checksum
from emotion_ai.scoring.journal import MOST_DEATHS, Journal
from emotion_ai.scoring.parts import Part, Picture, readable
from emotion_ai.terminal import escaped, one_line
from emotion_ai.video.rows import column_types, video_columns
from emotion_ai.vision.photo import load_photo

with optional_imports("score"):
    import pyarrow as pa
    from pyarrow import parquet

COUNTS = "emotion_ai.counts"
"""Key of a part's counts in its metadata."""

_AHEAD = 8  # pictures whose files are read while others are
_BATCH_PIXELS = 64_000_000  # of the pictures that are held at once
_ROWS = 2000  # that are held at once
_GIVES_UP = (ConfigError, MissingExtraError)
_DEADLY = f"the process that read it died {MOST_DEATHS} times (a crash, or too little memory); use another picture"


@dataclass(frozen=True)
class PartCounts:
    """Of a part: pictures, rows, faces, pictures without a face, and pictures that could not be read."""

    pictures: int = 0
    rows: int = 0
    faces: int = 0
    without_face: int = 0
    failed: int = 0

    def __add__(self, other: Self) -> Self:
        return type(self)(**{name: value + getattr(other, name) for name, value in asdict(self).items()})


@dataclass
class _Read:
    """A picture that waits for its faces to be read."""

    picture: Picture
    gray: NDArray[np.uint8] | None = None
    scale: int = 1
    faces: list[DetectedFace] = field(default_factory=list)
    readings: list[FaceReading] = field(default_factory=list)
    error: str | None = None


class PartReader:
    """Reads parts with one reader.

    Args:
        reader: reads the crops of several pictures together.
        batch_size: pictures that are read together.
        gives_up: errors of the reader after which no other picture can be read either; others are rows.
    """

    def __init__(self, reader: PhotoReader, batch_size: int, gives_up: tuple[type[EmotionAIError], ...] = ()) -> None:
        self._reader, self._batch_size, self._gives_up = reader, batch_size, (*gives_up, *_GIVES_UP)
        try:
            self._classes = reader.class_names()
        except ConfigError:  # a model without classes
            self._classes = EMOTIONS

    def write(self, part: Part, path: Path, metadata: dict[str, str], journal: Journal | None = None) -> PartCounts:
        """Writes the rows of a part, whole or not at all, with metadata that has its counts and a checksum as well.

        Args:
            part: what to read.
            path: the file.
            metadata: of the file.
            journal: names pictures at which earlier processes died; they become rows with an error.

        Raises:
            EmotionAIError: no picture can be read, as when a server is away.
            OSError: the file cannot be written.
        """
        schema, renamed = table_schema(self._classes, part.columns)
        counts = PartCounts()
        with atomic_path(path, sync=True) as partial:
            with parquet.ParquetWriter(partial, schema.with_metadata(metadata), compression="zstd") as writer:
                for table, more in self._tables(part, schema, renamed, journal or Journal()):
                    writer.write_table(table)
                    counts += more
                writer.add_key_value_metadata({COUNTS: json.dumps(asdict(counts)), **NO_CHECKSUM})
            write_checksum(partial)
        return counts

    def _tables(
        self, part: Part, schema: Any, renamed: dict[str, str], journal: Journal
    ) -> Iterator[tuple[Any, PartCounts]]:
        held: list[_Read] = []
        for batch in self._batches(part, journal):
            held += batch
            if sum(max(len(read.readings), 1) for read in held) >= _ROWS:
                yield _table(held, schema, part.columns, renamed), _counts(held)
                held = []
        if held:
            yield _table(held, schema, part.columns, renamed), _counts(held)

    def _batches(self, part: Part, journal: Journal) -> Iterator[list[_Read]]:
        batch, pixels = list[_Read](), 0
        size = self._batch_size if journal.together else 1
        for number, (picture, load) in enumerate(_loaded_ahead(part.pictures())):
            if journal.deadly(number):
                read = _Read(picture, error=escaped(one_line(f"{picture.name}: {_DEADLY}")))
            else:
                journal.reading(number)
                read = self._detect(picture, load)
            batch.append(read)
            pixels += 0 if read.gray is None else read.gray.size
            if len(batch) >= size or pixels >= _BATCH_PIXELS:
                yield self._finished(batch, number, journal)
                batch, pixels = [], 0
            journal.between()
        if batch:
            yield self._finished(batch, number, journal)
            journal.between()

    def _detect(self, picture: Picture, load: Callable[[], bytes]) -> _Read:
        read = _Read(picture)
        try:
            photo = load_photo(load(), picture.name)
            read.faces, read.gray, read.scale = detect_faces(photo), photo.gray, photo.scale
        except NoFaceError:
            pass
        except Exception as error:  # whatever a strange picture does to a library, the others are read
            read.error = _message(picture, error)
        return read

    def _finished(self, batch: list[_Read], last: int, journal: Journal) -> list[_Read]:
        """The batch, which ends with that picture, with its faces read; one by one where the reader rejects them
        together."""
        shown = [read for read in batch if read.gray is not None]
        if shown:
            journal.reading(last - len(batch) + 1, last)
        photos = [(read.gray, read.faces) for read in shown if read.gray is not None]
        for read, found in zip(shown, read_each(photos, self._reader, self._gives_up), strict=True):
            if isinstance(found, Exception):
                read.error = _message(read.picture, found)
            else:
                read.readings = found if read.scale == 1 else [face.scaled(read.scale) for face in found]
            read.gray = None
        return batch


def table_schema(classes: tuple[str, ...], extra: Any) -> tuple[Any, dict[str, str]]:
    """The schema of a table, and the names that it has for the source's other columns.

    A column that is named like one of ours gets `source_` before its name.
    """
    names = video_columns(classes)
    types = column_types(names)
    fields = [pa.field(name, types[name]) for name in names]
    taken = {name.casefold() for name in names}
    renamed: dict[str, str] = {}
    for column in extra:
        name = column.name
        while name.casefold() in taken:
            name = f"source_{name}"
        taken.add(name.casefold())
        renamed[column.name] = name
        fields.append(column.with_name(name).with_nullable(True).remove_metadata())
    return pa.schema(fields), renamed


def _table(reads: list[_Read], schema: Any, extra: Any, renamed: dict[str, str]) -> Any:
    rows: list[Row] = []
    extras = list[Any]()
    lost = pa.table([pa.nulls(1, column.type) for column in extra], extra.names)
    for read in reads:
        start: Row = {"source": readable(read.picture.name)}
        if read.error is not None:
            found: list[Row] = [{**start, "error": read.error}]
        else:
            faces = enumerate(read.readings, 1)
            found = [{**start, "face": i, **face.as_row(), **deviation_row(face)} for i, face in faces] or [start]
        rows += found
        extras += [lost if read.picture.extra is None else read.picture.extra] * len(found)
    own = len(schema) - len(extra)
    arrays = [pa.array([row.get(name) for row in rows], schema.field(name).type) for name in schema.names[:own]]
    for name in extra.names:  # not by `take`, which has no kernel for some types
        arrays.append(pa.concat_arrays([chunk for each in extras for chunk in each.column(name).chunks]))
    return pa.Table.from_arrays(arrays, schema=schema)


def _counts(reads: list[_Read]) -> PartCounts:
    return PartCounts(
        pictures=len(reads),
        rows=sum(max(len(read.readings), 1) for read in reads),
        faces=sum(len(read.readings) for read in reads),
        without_face=sum(not read.readings and read.error is None for read in reads),
        failed=sum(read.error is not None for read in reads),
    )


def _loaded_ahead(pictures: Iterator[Picture]) -> Iterator[tuple[Picture, Callable[[], bytes]]]:
    """Pictures with what returns their content, which is loaded by other threads a few pictures ahead."""
    with ThreadPoolExecutor(_AHEAD // 2, "emotion-ai-load") as pool:
        waiting: deque[tuple[Picture, Future[bytes]]] = deque()
        try:
            for picture in pictures:
                waiting.append((picture, pool.submit(picture.load)))
                if len(waiting) > _AHEAD:
                    first, future = waiting.popleft()
                    yield first, future.result
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _message(picture: Picture, error: Exception) -> str:
    if isinstance(error, EmotionAIError):
        return escaped(one_line(str(error)))
    reason = f"{picture.name}: cannot be read ({type(error).__name__}: {error}); use another picture"
    return escaped(one_line(reason))
