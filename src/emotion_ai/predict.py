"""The command `emotion-ai predict`: photographs in; a table, JSON, CSV and annotated pictures out."""

from collections.abc import Callable, Sequence
from csv import DictWriter
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from emotion_ai.annotate import annotate
from emotion_ai.client import FaceClient
from emotion_ai.contract import EMOTIONS
from emotion_ai.errors import (
    ClientError,
    ConfigError,
    EmotionAIError,
    ImageError,
    ModelNotFoundError,
    ServerUnreachableError,
)
from emotion_ai.photo import load_photo
from emotion_ai.readings import COLUMNS, CropReadings, Crops, FaceReading, read_photo

Answer = tuple[Path, list[FaceReading] | EmotionAIError]


def predict_command(
    photos: Sequence[Path],
    server: str | None = None,
    version: int | None = None,
    label: str | None = None,
    out: Path | None = None,
    csv: Path | None = None,
    as_json: bool = False,
) -> int:
    """Reads photographs with a served model, or with the bundled weights and PyTorch, and shows what was found.

    Returns:
        The exit code: 0; 1 when some photograph could not be read; 2 when the server answered none of them.

    Raises:
        ConfigError: settings that contradict each other, or a place that cannot be written to.
        CheckpointError: the bundled weights cannot be used.
        MissingExtraError: no server is given and PyTorch is not installed.
    """
    if server is None:
        if version is not None or label is not None:
            raise ConfigError("--version and --label choose among served models; give --server as well")
        from emotion_ai.reader import FaceReader  # brings PyTorch

        return predict(photos, FaceReader.bundled().read_crops, out, csv, as_json)
    with FaceClient(server, version=version, label=label) as client:
        return predict(photos, client.read_crops, out, csv, as_json)


def predict(
    photos: Sequence[Path],
    read_crops: Callable[[Crops], CropReadings],
    out: Path | None = None,
    csv: Path | None = None,
    as_json: bool = False,
) -> int:
    """`predict_command` with any reader of crops: a bad photograph is one line on stderr, the others are answered."""
    for folder in filter(None, (out, csv.parent if csv else None)):
        _make(folder)
    pictures = _picture_names(photos, out) if out else None
    answers: list[Answer] = []
    with _progress(len(photos)) as progress:
        task = progress.add_task("reading", total=len(photos))
        for i, path in enumerate(photos):
            answer: list[FaceReading] | EmotionAIError
            try:
                photo = load_photo(path)
                answer = read_photo(photo, read_crops)
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
        _write_csv(csv, answers)
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


def _write_csv(path: Path, answers: list[Answer]) -> None:
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = DictWriter(file, ["photo", "face", *COLUMNS])
            writer.writeheader()
            for photo, answer in answers:
                for number, face in enumerate(answer if isinstance(answer, list) else [], 1):
                    writer.writerow({"photo": str(photo), "face": number, **face.as_row()})
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); choose another --csv") from error


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
                face.emotion or "-",
                *(f"{p:.1%}" for p in face.probabilities),
            )
    return table
