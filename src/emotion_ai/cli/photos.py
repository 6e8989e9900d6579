"""What `emotion-ai predict` does: photos in; a table, JSON, CSV and annotated pictures out."""

import contextlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from emotion_ai.cli import kaggle, watch
from emotion_ai.client import FaceClient
from emotion_ai.contract import EMOTIONS, Servable
from emotion_ai.errors import (
    ClientError,
    ConfigError,
    EmotionAIError,
    ImageError,
    ModelNotFoundError,
    ServerUnreachableError,
)
from emotion_ai.inference.drawing import annotate
from emotion_ai.inference.results import FaceReading, PhotoReader
from emotion_ai.inference.tables import PHOTO_COLUMNS, face_rows, write_csv
from emotion_ai.terminal import Console
from emotion_ai.video.smoothing import Smoother
from emotion_ai.vision.photo import load_photo

Result = list[FaceReading] | EmotionAIError
"""The faces of a photo, or why it could not be read."""


@dataclass(frozen=True)
class PredictOptions:
    """Options of `emotion-ai predict`.

    Attributes:
        photos: files; with `kaggle` its `test.csv` and `IdLookupTable.csv`.
        server: a server's address; without it the bundled weights are used, with PyTorch.
        model, signature, version, label: of the served model.
        watch: a folder whose new photos are read until interrupted, instead of `photos`.
        kaggle: writes a submission to `csv`, by default `submission.csv`.
        fps: frame rate, if the photos are frames of one video in order; readings are smoothed.
        uncertain_below: confidence below which an emotion counts as uncertain; by default the threshold of the
            bundled weights, or of the served version.
        out: folder for the annotated photos.
        csv: table with one row per face.
        json: prints JSON instead of a table.
    """

    photos: Sequence[Path] = ()
    server: str | None = None
    model: Servable = "face"
    signature: str | None = None
    version: int | None = None
    label: str | None = None
    watch: Path | None = None
    kaggle: bool = False
    fps: float | None = None
    uncertain_below: float | None = None
    out: Path | None = None
    csv: Path | None = None
    json: bool = False


def predict_command(options: PredictOptions) -> int:
    """Reads photos with a served model, or with the bundled weights, and shows the faces.

    Returns:
        The exit code: 0; 1 if a photo could not be read; 2 if the server read none of them.

    Raises:
        ConfigError: options contradict each other, or a file cannot be written.
        CheckpointError: the bundled weights cannot be loaded.
        MissingExtraError: no server is given and PyTorch is not installed.
        DataError, ClientError: a submission cannot be made.
    """
    _check(options)
    with _open_reader(options) as reader:
        if options.kaggle:
            path = options.csv or Path("submission.csv")
            rows = kaggle.write_submission(options.photos[0], options.photos[1], reader, path)
            Console().wrote(path, f"{rows} rows")
            return 0
        return follow(options, reader) if options.watch else predict(options, reader)


def _check(options: PredictOptions) -> None:
    if options.kaggle:
        if len(options.photos) != 2 or options.model == "emotion":
            raise ConfigError("--kaggle takes two files, test.csv and IdLookupTable.csv, and a model with keypoints")
        others = (options.out, options.watch, options.fps, options.uncertain_below)
        if options.json or any(option is not None for option in others):
            raise ConfigError(
                "--kaggle only writes a table: leave out --out, --json, --watch, --fps, --uncertain-below"
            )
    elif bool(options.photos) == (options.watch is not None):
        raise ConfigError("give either photos, or --watch FOLDER")
    if options.fps is not None and (options.watch or not 0 < options.fps < math.inf):
        raise ConfigError(f"--fps must be a frame rate above 0, for photos without --watch, got {options.fps:g}")
    served = (options.model, options.signature, options.version, options.label)
    if options.server is None and served != ("face", None, None, None):
        raise ConfigError("--model, --signature, --version and --label choose a served model; give --server as well")


def _open_reader(options: PredictOptions) -> contextlib.AbstractContextManager[PhotoReader]:
    if options.server is not None:
        return FaceClient(
            options.server,
            model=options.model,
            version=options.version,
            label=options.label,
            signature=options.signature,
            uncertain_below=options.uncertain_below,
        )
    from emotion_ai.inference.reader import FaceReader  # imports PyTorch

    return contextlib.nullcontext(FaceReader.bundled(options.uncertain_below))


def follow(options: PredictOptions, reader: PhotoReader, poll: float = watch.POLL) -> int:
    """Reads a folder's photos until interrupted; JSON has one object per line."""
    _make_folders(options)
    console, errors = Console(soft_wrap=True, highlight=False), Console(stderr=True, soft_wrap=True)

    def read_file(path: Path) -> list[FaceReading]:
        photo = load_photo(path)
        faces = reader.read(photo)
        if options.out:
            _write_picture(photo.rgb, faces, options.out / f"{path.stem}.annotated.png")
        return faces

    def show(path: Path, result: Result) -> None:
        if options.json:
            console.print(json.dumps(_record(path, result)), markup=False)
        if isinstance(result, EmotionAIError):
            _print_error(errors, path, result)
        elif not options.json:
            console.print(f"{path.name}: {', '.join(face.caption for face in result)}", markup=False)

    with contextlib.suppress(KeyboardInterrupt):
        watch.watch(options.watch or Path(), read_file, show, options.csv, poll)
    return 0


def predict(options: PredictOptions, reader: PhotoReader) -> int:
    """Reads the named photos; one that cannot be read is one line on stderr, and the others are still read."""
    _make_folders(options)
    pictures = _picture_names(options.photos, options.out) if options.out else None
    results: list[tuple[Path, Result]] = []
    smooth = Smoother() if options.fps else None
    with _progress(len(options.photos)) as progress:
        task = progress.add_task("reading", total=len(options.photos))
        for i, path in enumerate(options.photos):
            result: Result
            try:
                photo = load_photo(path)
                result = reader.read(photo)
                if smooth and options.fps:
                    result = smooth(result, i / options.fps)
                if pictures:
                    _write_picture(photo.rgb, result, pictures[i])
            except (ImageError, ClientError) as error:
                result = error
                _print_error(progress.console, path, error)
            results.append((path, result))
            progress.advance(task)
            if isinstance(result, ServerUnreachableError | ModelNotFoundError) and not _any_read(results):
                return 2  # the remaining photos would fail for the same reason
    if options.csv:
        rows = [row for path, result in results if isinstance(result, list) for row in face_rows(result, path)]
        write_csv(options.csv, rows, PHOTO_COLUMNS)
    if options.json:
        Console().print_json(data=[_record(path, result) for path, result in results])
    elif _any_read(results):
        Console().print(_table(results))
    return int(any(isinstance(result, EmotionAIError) for _, result in results))


def _any_read(results: Sequence[tuple[Path, Result]]) -> bool:
    return any(isinstance(result, list) for _, result in results)


def _progress(count: int) -> Progress:
    console = Console(stderr=True, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=count < 2 or not console.is_terminal)


def _print_error(console: Console, path: Path, error: EmotionAIError) -> None:
    message = " ".join(str(error).split())
    if not message.startswith(str(path)):
        message = f"{path}: {message}"
    console.print(Text.assemble(("error: ", "bold red"), message), highlight=False)


def _make_folders(options: PredictOptions) -> None:
    for folder in filter(None, (options.out, options.csv.parent if options.csv else None)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{folder}: cannot be created ({error.strerror}); choose another folder") from error


def _picture_names(photos: Sequence[Path], out: Path) -> list[Path]:
    """A file name for each photo, numbered where photos of several folders share a name."""
    names: list[Path] = []
    for photo in photos:
        name, number = out / f"{photo.stem}.annotated.png", 1
        while name in names:
            number += 1
            name = out / f"{photo.stem}-{number}.annotated.png"
        names.append(name)
    return names


def _write_picture(rgb: NDArray[np.uint8], readings: Sequence[FaceReading], path: Path) -> None:
    try:
        annotate(rgb, readings).save(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); choose another --out") from error


def _record(path: Path, result: Result) -> dict[str, Any]:
    if isinstance(result, EmotionAIError):
        return {"photo": str(path), "error": " ".join(str(result).split())}
    return {"photo": str(path), "faces": [face.as_dict() for face in result]}


def _table(results: Sequence[tuple[Path, Result]]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("photo", overflow="fold")
    table.add_column("face", justify="right")
    table.add_column("emotion", style="bold")
    for name in EMOTIONS:
        table.add_column(name, justify="right")
    for path, result in results:
        for number, face in enumerate(result if isinstance(result, list) else [], 1):
            probabilities = (f"{p:.1%}" for p in face.probabilities)
            table.add_row(Text(path.name), str(number), face.verdict or "-", *probabilities)
    return table
