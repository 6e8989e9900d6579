"""What `emotion-ai score` does: pictures in, Parquet files with a row per face out."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from emotion_ai.cli.patience import NO_ANSWERS, PatientReader
from emotion_ai.cli.readers import ReaderOptions
from emotion_ai.cli.signals import terminable
from emotion_ai.client import FaceClient
from emotion_ai.contract import Task
from emotion_ai.errors import CheckpointError, ConfigError, EmotionAIError
from emotion_ai.inference.results import PhotoReader, check_threshold
from emotion_ai.scoring.run import ReaderSource, ScoreOptions, ScoreProgress, score
from emotion_ai.scoring.sources import open_source
from emotion_ai.terminal import Console, Progress, printable
from emotion_ai.video.saving import model_identity


@dataclass(frozen=True)
class ScoreCommand(ReaderOptions):
    """Options of `emotion-ai score`, besides those of `ReaderOptions`.

    Attributes:
        sources: folders, glob patterns, pictures, tar shards or tables; paths or addresses.
        dest: folder for the results.
        column: of a table, with its pictures.
        keypoints, emotion: checkpoints, or "bundled".
        uncertain_below: confidence below which an emotion counts as uncertain.
        address: of a Ray cluster.
        workers: processes that read.
        batch_size: pictures whose faces are read together.
        overwrite: replaces the results of another run.
    """

    sources: tuple[str, ...]
    dest: Path
    column: str | None = None
    keypoints: str = "bundled"
    emotion: str = "bundled"
    uncertain_below: float | None = None
    address: str | None = None
    workers: int | None = None
    batch_size: int | None = None
    overwrite: bool = False

    def reader(self) -> ReaderSource:
        """What the workers read with."""
        if self.server is not None:
            return ServerReader(self, self.uncertain_below)
        return WeightsReader(self.keypoints, self.emotion, self.device, self.precision, self.uncertain_below)

    def check(self) -> None:
        """Checks that the options fit together.

        Raises:
            ConfigError: they do not.
        """
        super().check()
        for name, value in (("--workers", self.workers), ("--batch-size", self.batch_size)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be >= 1, got {value}")
        if self.uncertain_below is not None:
            check_threshold(self.uncertain_below)
        if self.server is not None and (self.keypoints, self.emotion) != ("bundled", "bundled"):
            raise ConfigError("--keypoints and --emotion are for reading without a server; leave out --server")
        if self.device.startswith("cuda:"):
            raise ConfigError(
                f"--device {self.device}: the workers share all GPUs; give --device cuda, and choose some by "
                "CUDA_VISIBLE_DEVICES"
            )
        if "://" in str(self.dest) or str(self.dest).startswith(("s3:", "gs:", "hdfs:", "abfs:")):
            raise ConfigError(f"{self.dest}: DEST must be a folder, on this machine or mounted; copy it afterwards")


@dataclass(frozen=True)
class WeightsReader:
    """Reads with the weights of two checkpoints, on one thread of a CPU or on a GPU."""

    keypoints: str
    emotion: str
    device: str
    precision: str
    uncertain_below: float | None
    gives_up: ClassVar[tuple[type[EmotionAIError], ...]] = ()

    def open(self) -> PhotoReader:
        """A new reader."""
        from emotion_ai.inference.reader import FaceReader  # names the extra if PyTorch is missing

        import torch  # isort: skip

        torch.set_num_threads(1)  # the workers share the CPUs
        return FaceReader.load(
            self.keypoints, self.emotion, self.uncertain_below, device=self.device, precision=self.precision
        )

    def identity(self) -> Mapping[str, Any]:
        """Checksums of the checkpoints, and a precision other than fp32."""
        from emotion_ai.models.checkpoint import bundled
        from emotion_ai.models.device import Placement

        Placement.of("cpu", self.precision)  # an error before the workers start
        checkpoints: dict[Task, str] = {"keypoints": self.keypoints, "emotion": self.emotion}
        sums: dict[str, Any] = {
            task: _checksum(bundled(task) if checkpoint == "bundled" else Path(checkpoint))
            for task, checkpoint in checkpoints.items()
        }
        return sums if self.precision == "fp32" else {**sums, "precision": self.precision}


@dataclass(frozen=True)
class ServerReader:
    """Reads with a served model; waits for a server that is away."""

    options: ReaderOptions
    uncertain_below: float | None
    gives_up: ClassVar[tuple[type[EmotionAIError], ...]] = NO_ANSWERS

    def open(self) -> PhotoReader:
        """A new client."""
        options = self.options
        client = FaceClient(
            options.server or "",
            model=options.model,
            version=options.version,
            label=options.label,
            signature=options.signature,
            uncertain_below=self.uncertain_below,
        )
        return PatientReader(client, options.timeout, lambda _: None)

    def identity(self) -> Mapping[str, Any]:
        """The model's classes and what it reads in a few patterns."""
        return model_identity(self.open())


def score_command(command: ScoreCommand) -> int:
    """Scores pictures with the bundled weights, other ones or a served model.

    Returns:
        The exit code: 0, or 130 after Ctrl-C.

    Raises:
        ConfigError: options contradict each other, or the folder has results of another run.
        DataError: a table cannot be read.
        CheckpointError, ClientError: the model cannot be used.
        MissingExtraError: no server is given and PyTorch is not installed.
    """
    command.check()
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    with terminable():
        source = open_source(command.sources, command.column, command.dest)
        if source.passed_over:
            kinds = ", ".join(sorted(suffix or "no suffix" for suffix in source.passed_over))
            console.print(printable(f"files passed over: {sum(source.passed_over.values())} ({kinds})"))
        gpu = command.server is None and command.device in ("auto", "cuda")
        options = ScoreOptions(
            address=command.address,
            workers=command.workers,
            batch_size=command.batch_size,
            gpu=gpu,
            overwrite=command.overwrite,
        )
        identity = {"uncertain_below": command.uncertain_below}
        with _progress(console) as progress:
            shown = _Shown(progress, source.count)
            try:
                found = score(source, command.dest, command.reader(), options, identity, shown)
            except KeyboardInterrupt:
                found = None
    if found is None:
        console.print("interrupted; the same command scores the rest")
        return 130
    counts = found.total
    speed = f", {found.counts.pictures / found.seconds:.1f} pictures/s" if found.seconds else ", already scored"
    console.wrote(
        command.dest,
        f"{counts.pictures} pictures{speed}; {counts.faces} faces, {counts.without_face} pictures without a face, "
        f"{counts.failed} with an error",
    )
    return 0


def _checksum(path: Path) -> str:
    """SHA-256 of a checkpoint.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: no such checkpoint; give 'bundled', a .safetensors or a .ckpt file") from error


class _Shown:
    """The progress bar."""

    def __init__(self, progress: Progress, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task("starting", total=total, speed="")

    def __call__(self, state: ScoreProgress) -> None:
        speed = f"{state.counts.pictures / state.seconds:.1f} pictures/s" if state.seconds else ""
        what = "scoring" if state.seconds else "starting"
        self._progress.update(self._task, description=what, completed=state.total.pictures, speed=speed)


def _progress(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal)
