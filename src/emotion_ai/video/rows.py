"""The table of a video: one row per face and frame, as CSV or Parquet. Needs the extra [video]."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from emotion_ai.contract import EMOTIONS
from emotion_ai.extras import optional_imports
from emotion_ai.files import atomic_path
from emotion_ai.inference.results import columns
from emotion_ai.inference.tables import DEVIATION_COLUMNS, Row, cell_text, deviation_row
from emotion_ai.terminal import escaped, one_line
from emotion_ai.video.frames import FrameReading

with optional_imports("video"):
    import pyarrow as pa
    from pyarrow import csv as arrow_csv
    from pyarrow import parquet

_BLOCK = 4 * 2**20  # bytes of the CSV file that are read at once
_TEXTS = ("source", "emotion", "quality", "error")
_WHOLE_NUMBERS = ("frame", "track", "face")


def video_columns(classes: Sequence[str] = EMOTIONS) -> tuple[str, ...]:
    """Columns of a video's table: frame from 0, seconds, track and face from 1, those of a face, and why it failed."""
    return ("source", "frame", "seconds", "track", "face", *columns(classes), *DEVIATION_COLUMNS, "error")


def frame_rows(source: str, reading: FrameReading) -> list[Row]:
    """A row for each face of a frame, from left to right; one without a face if it has none."""
    start: Row = {"source": source, "frame": reading.frame, "seconds": round(reading.seconds, 6)}
    rows = [
        {**start, "track": face.track, "face": number, **face.reading.as_row(), **deviation_row(face.reading)}
        for number, face in enumerate(reading.faces, 1)
    ]
    return rows or [start]


def error_row(source: str, frame: int, seconds: float, error: object) -> Row:
    """The row of a frame that could not be read."""
    return {"source": source, "frame": frame, "seconds": round(seconds, 6), "error": escaped(one_line(str(error)))}


def column_types(names: Iterable[str]) -> dict[str, Any]:
    """The types that columns of a table have in Parquet, by name."""
    types = {name: pa.float64() for name in names}
    types |= {name: pa.string() for name in _TEXTS} | {name: pa.int64() for name in _WHOLE_NUMBERS}
    return {**types, "uncertain": pa.bool_()}


def write_parquet(rows: Path, path: Path) -> None:
    """Writes the table `rows`, a CSV file, as Parquet; texts are without the apostrophes that guard CSV cells.

    The file is read piece by piece.

    Raises:
        OSError: a file cannot be read or written.
    """
    with atomic_path(path) as partial, _opened(rows) as pieces:
        schema = pieces.schema
        plain = pa.schema([pa.field(cell_text(field.name), field.type) for field in schema])
        with parquet.ParquetWriter(partial, plain, compression="zstd") as writer:
            for piece in pieces:
                cells = [
                    _plain(column) if name in _TEXTS else column
                    for name, column in zip(schema.names, piece.columns, strict=True)
                ]
                writer.write_batch(pa.RecordBatch.from_arrays(cells, schema=plain))


def read_columns(rows: Path, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Some columns of a table in CSV or Parquet, row by row; missing values are None.

    Raises:
        OSError: the file cannot be read.
    """
    if rows.suffix == ".parquet":
        with parquet.ParquetFile(rows) as file:
            for piece in file.iter_batches(columns=list(names)):
                yield from piece.to_pylist()
        return
    with _opened(rows, names) as pieces:
        for piece in pieces:
            yield from piece.to_pylist()


def _opened(rows: Path, names: Sequence[str] | None = None) -> Any:
    """The pieces of a CSV table."""
    with rows.open(encoding="utf-8", newline="") as file:
        header = next(csv.reader(file))
    return arrow_csv.open_csv(
        rows,
        arrow_csv.ReadOptions(block_size=_BLOCK),
        arrow_csv.ParseOptions(newlines_in_values=True),
        arrow_csv.ConvertOptions(
            column_types=column_types(header),
            include_columns=list(names or ()),
            strings_can_be_null=True,
            null_values=[""],
        ),
    )


def _plain(cells: Any) -> Any:
    """The texts of CSV cells."""
    encoded = cells.dictionary_encode()
    texts = [cell_text(cell) for cell in encoded.dictionary.to_pylist()]
    return pa.DictionaryArray.from_arrays(encoded.indices, pa.array(texts, pa.string())).cast(pa.string())
