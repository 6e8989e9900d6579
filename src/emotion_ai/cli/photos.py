"""The command `emotion-ai predict`: photographs in; a table, JSON, CSV and annotated pictures out."""

import contextlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from emotion_ai.cli import kaggle, watch
from emotion_ai.client import FaceClient
from emotion_ai.contract import BYTES_SIGNATURE, EMOTIONS, Servable
from emotion_ai.errors import (
    ClientError,
    ConfigError,
    EmotionAIError,
    ImageError,
    ModelNotFoundError,
    ServerUnreachableError,
)
from emotion_ai.inference.drawing import annotate
from emotion_ai.inference.results import FaceReading
from emotion_ai.inference.tables import PHOTO_COLUMNS, face_rows, write_csv
from emotion_ai.video.smoothing import Smoother
from emotion_ai.vision.photo import Photo, load_photo

if TYPE_CHECKING:
    from emotion_ai.inference.reader import FaceReader

Answer = tuple[Path, list[FaceReading] | EmotionAIError]
Read = Callable[[Photo], list[FaceReading]]


@dataclass(frozen=True)
class Output:
    """Where readings go: annotated pictures, a table with a row for each face, and JSON or a table on the screen."""

    out: Path | None = None
    csv: Path | None = None
    as_json: bool = False


def predict_command(
    photos: Sequence[Path] = (),
    server: str | None = None,
    model: Servable = "face",
    signature: str = BYTES_SIGNATURE,
    version: int | None = None,
    label: str | None = None,
    watched: Path | None = None,
    submission: bool = False,
    fps: float | None = None,
    uncertain_below: float | None = None,
    output: Output | None = None,
) -> int:
    """Reads photographs with a served model, or with the bundled weights and PyTorch, and shows what was found.

    Args:
        photos: files; for a submission Kaggle's `test.csv` and `IdLookupTable.csv`.
        server: its address; None takes PyTorch.
        model, signature, version, label: of the server.
        watched: a folder instead of photographs.
        submission: writes Kaggle's table instead, to `output.csv` or `submission.csv`.
        fps: the photographs are frames of one video, so many a second: readings are smoothed.
        uncertain_below: confidence below which an emotion is called uncertain. Without it the bundled weights take
            their own, and no emotion of a server is called so.
        output: where readings go.

    Returns:
        The exit code: 0; 1 when some photograph could not be read; 2 when the server answered none of them.

    Raises:
        ConfigError: settings that contradict each other, or a place that cannot be written to.
        CheckpointError: the bundled weights cannot be used.
        MissingExtraError: no server is given and PyTorch is not installed.
        DataError, ClientError: a submission cannot be made.
    """
    output = output or Output()
    if submission:
        if len(photos) != 2 or model == "emotion":
            raise ConfigError("--kaggle takes two files, test.csv and IdLookupTable.csv, and a model with keypoints")
        if output.out or output.as_json or watched or fps is not None or uncertain_below is not None:
            raise ConfigError(
                "--kaggle writes a table only: leave out --out, --json, --watch, --fps, --uncertain-below"
            )
    elif bool(photos) == (watched is not None):
        raise ConfigError("give photographs, or --watch FOLDER for those that come into a folder")
    if fps is not None and (watched or not 0 < fps < math.inf):
        raise ConfigError(f"--fps {fps:g}: give the frames a second, more than 0, of photographs that are named")
    with _reader(server, model, signature, version, label, uncertain_below) as reader:
        if submission:
            path = output.csv or Path("submission.csv")
            rows = kaggle.write_submission(photos[0], photos[1], reader, path)
            Console(soft_wrap=True).print(f"wrote {path}: {rows} rows", markup=False, highlight=False)
            return 0
        if watched is not None:
            return follow(watched, reader.read, output)
        return predict(photos, reader.read, output.out, output.csv, output.as_json, fps)


def _reader(
    server: str | None, model: Servable, signature: str, version: int | None, label: str | None, threshold: float | None
) -> "contextlib.AbstractContextManager[FaceClient | FaceReader]":
    if server is not None:
        return FaceClient(
            server, model=model, version=version, label=label, signature=signature, uncertain_below=threshold or 0.0
        )
    if (model, signature, version, label) != ("face", BYTES_SIGNATURE, None, None):
        raise ConfigError("--model, --signature, --version, --label choose among served models; give --server as well")
    from emotion_ai.inference.reader import FaceReader  # brings PyTorch

    return contextlib.nullcontext(FaceReader.bundled(threshold))


def follow(folder: Path, read: Read, output: Output, poll: float = watch.POLL) -> int:
    """`predict_command` for a folder, until it is interrupted; with JSON, one object a line."""
    for place in filter(None, (output.out, output.csv.parent if output.csv else None)):
        _make(place)
    console, errors = Console(soft_wrap=True, highlight=False), Console(stderr=True, soft_wrap=True)

    def read_file(path: Path) -> list[FaceReading]:
        photo = load_photo(path)
        faces = read(photo)
        if output.out:
            _write_picture(photo.rgb, faces, output.out / f"{path.stem}.annotated.png")
        return faces

    def show(path: Path, answer: list[FaceReading] | EmotionAIError) -> None:
        if output.as_json:
            console.print(json.dumps(_record(path, answer)), markup=False)
        if isinstance(answer, EmotionAIError):
            _complain(errors, path, answer)
        elif not output.as_json:
            console.print(f"{path.name}: {', '.join(face.caption for face in answer)}", markup=False)

    with contextlib.suppress(KeyboardInterrupt):
        watch.watch(folder, read_file, show, output.csv, poll)
    return 0


def predict(
    photos: Sequence[Path],
    read: Read,
    out: Path | None = None,
    csv: Path | None = None,
    as_json: bool = False,
    fps: float | None = None,
) -> int:
    """`predict_command` with any reader: a bad photograph is one line on stderr, the others are answered."""
    for folder in filter(None, (out, csv.parent if csv else None)):
        _make(folder)
    pictures = _picture_names(photos, out) if out else None
    answers: list[Answer] = []
    smooth = Smoother() if fps else None
    with _progress(len(photos)) as progress:
        task = progress.add_task("reading", total=len(photos))
        for i, path in enumerate(photos):
            answer: list[FaceReading] | EmotionAIError
            try:
                photo = load_photo(path)
                answer = read(photo)
                if smooth and fps:
                    answer = smooth(answer, i / fps)
                if pictures:
                    _write_picture(photo.rgb, answer, pictures[i])
            except (ImageError, ClientError) as error:
                answer = error
                _complain(progress.console, path, error)
            answers.append((path, answer))
            progress.advance(task)
            hopeless = isinstance(answer, ServerUnreachableError | ModelNotFoundError)
            if hopeless and not any(isinstance(earlier, list) for _, earlier in answers):
                return 2  # the remaining photographs would fail for the same reason
    if csv:
        rows = [row for path, answer in answers if isinstance(answer, list) for row in face_rows(answer, path)]
        write_csv(csv, rows, PHOTO_COLUMNS)
    if as_json:
        Console().print_json(data=[_record(path, answer) for path, answer in answers])
    elif any(isinstance(answer, list) for _, answer in answers):
        Console().print(_table(answers))
    return int(any(isinstance(answer, EmotionAIError) for _, answer in answers))


def _progress(count: int) -> Progress:
    console = Console(stderr=True, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=count < 2 or not console.is_terminal)


def _complain(console: Console, path: Path, error: EmotionAIError) -> None:
    words = " ".join(str(error).split())
    if not words.startswith(str(path)):
        words = f"{path}: {words}"
    console.print(Text.assemble(("error: ", "bold red"), words), highlight=False)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from error


def _picture_names(photos: Sequence[Path], out: Path) -> list[Path]:
    """One name for each photograph, also where photographs of several folders are called the same."""
    names: list[Path] = []
    for photo in photos:
        name, number = out / f"{photo.stem}.annotated.png", 1
        while name in names:
            number += 1
            name = out / f"{photo.stem}-{number}.annotated.png"
        names.append(name)
    return names


def _write_picture(rgb: Any, readings: list[FaceReading], path: Path) -> None:
    try:
        annotate(rgb, readings).save(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); choose another --out") from error


def _record(path: Path, answer: list[FaceReading] | EmotionAIError) -> dict[str, Any]:
    if isinstance(answer, EmotionAIError):
        return {"photo": str(path), "error": " ".join(str(answer).split())}
    return {"photo": str(path), "faces": [face.as_dict() for face in answer]}


def _table(answers: list[Answer]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("photo", overflow="fold")
    table.add_column("face", justify="right")
    table.add_column("emotion", style="bold")
    for name in EMOTIONS:
        table.add_column(name, justify="right")
    for path, answer in answers:
        for number, face in enumerate(answer if isinstance(answer, list) else [], 1):
            table.add_row(
                Text(path.name),
                str(number),
                face.verdict or "-",
                *(f"{p:.1%}" for p in face.probabilities),
            )
    return table
