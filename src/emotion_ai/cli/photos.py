"""What `emotion-ai predict` does: photos in; a table, JSON, CSV and annotated pictures out."""

import contextlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from emotion_ai.cli import kaggle, watch
from emotion_ai.cli.patience import NO_ANSWERS, PatientReader
from emotion_ai.cli.photo_reading import PhotoRead, photos_together, read_files
from emotion_ai.cli.photo_results import (
    JsonList,
    Result,
    TerminalTable,
    in_file_pixels,
    make_folder,
    record,
    show_error,
    write_picture,
)
from emotion_ai.cli.readers import ReaderOptions
from emotion_ai.cli.signals import terminable
from emotion_ai.contract import EMOTIONS
from emotion_ai.errors import (
    AccessDeniedError,
    ClientError,
    ConfigError,
    EmotionAIError,
    ImageError,
    MissingExtraError,
    NoFaceError,
    ServerTimeoutError,
)
from emotion_ai.inference.photo_files import VIDEO_SUFFIXES, PhotoFile, find_photos, picture_name
from emotion_ai.inference.photo_table import PhotoTable
from emotion_ai.inference.results import FaceReading, PhotoReader
from emotion_ai.terminal import Console, Progress, print_error, printable
from emotion_ai.video import FaceTracker
from emotion_ai.vision.photo import load_photo


@dataclass(frozen=True)
class PredictOptions(ReaderOptions):
    """Options of `emotion-ai predict`, besides those of `ReaderOptions`.

    Attributes:
        photos: files, and folders that are searched at any depth; with `kaggle` its `test.csv` and `IdLookupTable.csv`.
        watch: a folder whose new photos are read until interrupted, instead of `photos`.
        kaggle: writes a submission to `csv`, by default `submission.csv`.
        fps: frame rate, if the photos are frames of one video in order; readings are smoothed.
        uncertain_below: confidence below which an emotion counts as uncertain; by default the threshold of the
            bundled weights, or of the served version.
        out: folder for the annotated photos.
        csv: table with one row per face; photos that it has already are not read again.
        answer_log: folder to which the answers are appended, as Parquet files.
        answer_log_crops: keeps the pixels of every crop there.
        json: prints JSON instead of a table.
    """

    photos: Sequence[Path] = ()
    watch: Path | None = None
    kaggle: bool = False
    fps: float | None = None
    uncertain_below: float | None = None
    out: Path | None = None
    csv: Path | None = None
    answer_log: Path | None = None
    answer_log_crops: bool = False
    json: bool = False


def predict_command(options: PredictOptions) -> int:
    """Reads photos with a served model, or with the bundled weights, and shows the faces.

    Returns:
        The exit code: 0; 1 if a photo could not be read; 2 if the server went away or denies access; 130 after Ctrl-C.

    Raises:
        ConfigError: options contradict each other, or a file cannot be written.
        CheckpointError: the bundled weights cannot be loaded.
        MissingExtraError: no server is given and PyTorch is not installed.
        DataError, ClientError: a submission cannot be made.
    """
    _check(options)
    with terminable(), _open_reader(options) as reader:
        if options.kaggle:
            path = options.csv or Path("submission.csv")
            patient = PatientReader(reader, options.timeout, _note)
            rows = kaggle.write_submission(options.photos[0], options.photos[1], patient, path)
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
    if options.csv and (options.json or options.watch) and _is_stdout(options.csv):
        raise ConfigError(f"--csv {options.csv}: --json and --watch print there as well; choose a file")
    if options.answer_log_crops and options.answer_log is None:
        raise ConfigError("--answer-log-crops keeps crops in the answer log; give --answer-log FOLDER as well")
    options.check()


@contextlib.contextmanager
def _open_reader(options: PredictOptions) -> Iterator[PhotoReader]:
    with contextlib.ExitStack() as stack:
        log = None
        if options.answer_log:
            from emotion_ai.inference.answer_log import AnswerLog  # imports pyarrow

            log = stack.enter_context(AnswerLog(options.answer_log, crops=options.answer_log_crops))
        yield stack.enter_context(options.opened(options.uncertain_below, log))


def follow(options: PredictOptions, reader: PhotoReader, poll: float = watch.POLL) -> int:
    """Reads a folder's photos until interrupted; JSON has one object per line."""
    folder, out = options.watch or Path(), options.out
    console, errors = Console(soft_wrap=True, highlight=False), Console(stderr=True)

    def read_file(path: Path) -> list[FaceReading]:
        photo = load_photo(path)
        faces = reader.read(photo)
        if out:
            write_picture(photo.rgb, faces, out / picture_name(path.name))
        return in_file_pixels(faces, photo)

    def show(path: Path, result: Result) -> None:
        if options.json:
            print(json.dumps(record(path, result)), flush=True)
        if isinstance(result, EmotionAIError):
            show_error(errors, path, result)
        elif not options.json:
            console.print(f"{printable(path.name)}: {', '.join(face.caption for face in result)}")

    with contextlib.ExitStack() as stack:
        table = _open_table(options.csv, reader, stack)
        if out:
            make_folder(out)
        stack.enter_context(contextlib.suppress(KeyboardInterrupt))
        watch.watch(watch.Watched(folder, out, table, poll), read_file, show)
    return 0


def predict(options: PredictOptions, reader: PhotoReader) -> int:
    """Reads the named photos; one that cannot be read is one line on stderr, and the others are still read."""
    found = find_photos(options.photos, options.out, repeats=options.fps is not None)
    if found.passed_over:
        kinds = ", ".join(sorted(suffix or "no suffix" for suffix in found.passed_over))
        hint = "; read videos with emotion-ai video FILE" if VIDEO_SUFFIXES & found.passed_over.keys() else ""
        count = sum(found.passed_over.values())
        _note(f"files passed over in folders, which are not pictures: {count} ({kinds}){hint}")
    if not found.photos:
        raise ConfigError("; ".join(found.problems))
    for problem in found.problems:
        print_error(printable(problem))
    with contextlib.ExitStack() as stack:
        table = _open_table(options.csv, reader, stack)
        if options.out:
            make_folder(options.out)
        pending, faceless = _pending(found.photos, table, options)
        if table:
            table.drop([photo.path for photo in pending])
            if len(pending) < len(found.photos):
                done = len(found.photos) - len(pending)
                _note(f"{table.path}: has {done} of the {len(found.photos)} photos already, which are not read again")
        on_stderr = options.csv is not None and _is_stdout(options.csv)
        shown: JsonList | TerminalTable = JsonList() if options.json else TerminalTable(on_stderr)
        stack.enter_context(shown)
        progress = stack.enter_context(_progress(len(pending)))
        run = _Run(options, reader, table, shown, progress)
        try:
            code = run.read_all(pending)
        except (KeyboardInterrupt, SystemExit) as error:
            rest = f"{run.done} of {len(pending)} photos were read"
            _note(f"interrupted; {rest}" + ("; the same command reads the others" if table else ""))
            code = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 130
    return code or int(bool(found.problems) or faceless)


class _Run:
    """One pass over photos, with what it writes to."""

    def __init__(
        self,
        options: PredictOptions,
        reader: PhotoReader,
        table: PhotoTable | None,
        shown: JsonList | TerminalTable,
        progress: Progress,
    ) -> None:
        self._options, self._table, self._shown, self._progress = options, table, shown, progress
        self._reader, self._together = PatientReader(reader, options.timeout, _note), photos_together(reader)
        self._track = FaceTracker() if options.fps else None
        self.done = 0

    def read_all(self, photos: Sequence[PhotoFile]) -> int:
        """Returns the exit code: 0, 1 if a photo could not be read, 2 if the server stays away or denies access."""
        task = self._progress.add_task("reading", total=len(photos))
        failed = away = False
        for i, read in enumerate(read_files(photos, self._reader, self._together)):
            photo, result = read.file, self._result(read, i)
            if isinstance(result, NO_ANSWERS) and (away or not isinstance(result, ServerTimeoutError)):
                self._give_up(photo, result, len(photos) - i)
                return 2
            away = isinstance(result, ServerTimeoutError)  # one photo may take too long; after two the server is away
            self._keep(photo, result)
            failed |= isinstance(result, EmotionAIError)
            self._progress.advance(task)
        return int(failed)

    def _result(self, read: PhotoRead, number: int) -> Result:
        photo, faces = read.photo, read.found
        try:
            if isinstance(faces, Exception):
                raise faces
            assert photo is not None
            if self._track and self._options.fps:
                faces = [face.reading for face in self._track(faces, number / self._options.fps, photo.rgb)]
            if self._options.out:
                write_picture(photo.rgb, faces, self._options.out / read.file.picture)
            return in_file_pixels(faces, photo)
        except (ConfigError, MissingExtraError):
            raise
        except EmotionAIError as error:
            return error
        except Exception as error:  # whatever a strange picture does to a library, the other photos are read
            path = read.file.path
            return ImageError(f"{path}: cannot be read ({type(error).__name__}: {error}); use another picture")

    def _keep(self, photo: PhotoFile, result: Result) -> None:
        if isinstance(result, EmotionAIError):
            show_error(self._errors, photo.path, result)
        if self._table:
            no_face = isinstance(result, NoFaceError)
            self._table.append(photo.path, result if isinstance(result, list) else [] if no_face else str(result))
        self._shown.add(photo.path, result)
        self.done += 1

    def _give_up(self, photo: PhotoFile, error: EmotionAIError, left: int) -> None:
        again = "with access" if isinstance(error, AccessDeniedError) else "once the server is back"
        rest = f"; {left} photos were not read, run the same command {again}" if left > 1 else ""
        show_error(self._errors, photo.path, f"{error}{rest}")
        self._shown.add(photo.path, error)

    @property
    def _errors(self) -> Console:
        console = self._progress.console
        assert isinstance(console, Console)
        return console


def _pending(
    photos: Sequence[PhotoFile], table: PhotoTable | None, options: PredictOptions
) -> tuple[list[PhotoFile], bool]:
    """The photos that a table does not have yet, and whether one that it has shows no face."""
    if table is None:
        return list(photos), False
    pending, faceless = [], False
    for photo in photos:
        outcome = table.outcome(photo.path)
        if outcome == "no face":
            faceless = True
        elif outcome != "faces" or (options.out and not (options.out / photo.picture).exists()):
            pending.append(photo)
    if pending and options.fps:  # smoothing needs every frame before
        return list(photos), False
    return pending, faceless


def _open_table(path: Path | None, reader: PhotoReader, stack: contextlib.ExitStack) -> PhotoTable | None:
    if path is None:
        return None
    make_folder(path.parent)
    unknown: EmotionAIError | None = None
    try:
        classes = reader.class_names()
    except AccessDeniedError:
        raise
    except (ClientError, ConfigError) as error:  # a server that is away, or a model without classes
        classes, unknown = EMOTIONS, error
    try:
        return stack.enter_context(PhotoTable(path, classes))
    except ConfigError:
        if isinstance(unknown, ClientError):  # the table may have the columns that the server's classes need
            raise unknown from None
        raise


def _is_stdout(path: Path) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(1))
    except OSError:
        return False


def _note(text: str) -> None:
    Console(stderr=True).print(printable(text), highlight=False, soft_wrap=True)


def _progress(count: int) -> Progress:
    console = Console(stderr=True, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=count < 2 or not console.is_terminal)
