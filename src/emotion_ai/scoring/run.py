"""Scores a source: its parts are read by Ray's actors, each with its own reader."""

import pickle
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path
from typing import Any, Protocol

from emotion_ai import errors
from emotion_ai.errors import ConfigError, EmotionAIError
from emotion_ai.inference.results import PhotoReader
from emotion_ai.scoring.folder import ScoreFolder
from emotion_ai.scoring.journal import Journal
from emotion_ai.scoring.local_ray import running_ray
from emotion_ai.scoring.part_reader import PartCounts, PartReader
from emotion_ai.scoring.sources import PictureSource
from emotion_ai.terminal import one_line

_RETRIES = 10_000  # of a part whose worker dies; its journal passes over the pictures that end it, and ends before


_BATCH = 32  # pictures
_GPU_BATCH = 128


class ReaderSource(Protocol):
    """What workers read with; it is pickled to them."""

    @property
    def gives_up(self) -> tuple[type[EmotionAIError], ...]:
        """Errors of the reader after which no other picture can be read either."""
        ...

    def open(self) -> PhotoReader:
        """A new reader, for the rest of the process."""
        ...

    def identity(self) -> Mapping[str, Any]:
        """What tells the model from another one, for JSON."""
        ...


@dataclass(frozen=True)
class ScoreOptions:
    """How a source is scored.

    Attributes:
        address: of a Ray cluster; by default one is started on this machine.
        workers: processes that read; by default one for each CPU.
        batch_size: pictures whose faces are read together; by default 32, with a GPU 128.
        gpu: whether the workers share the cluster's GPUs.
        overwrite: replaces the results of another run.
    """

    address: str | None = None
    workers: int | None = None
    batch_size: int | None = None
    gpu: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class ScoreProgress:
    """Of a run: what was finished before it and by it, and the seconds since its workers began."""

    before: PartCounts
    counts: PartCounts
    seconds: float
    parts: int
    parts_done: int

    @property
    def total(self) -> PartCounts:
        """Of the whole source so far."""
        return self.before + self.counts


Progress = Callable[[ScoreProgress], None]


@dataclass(frozen=True)
class _Work:
    """What each worker needs; `gpu` is its share of a GPU."""

    folder: ScoreFolder
    reader: ReaderSource
    batch_size: int | None
    gpu: float


class _Worker:
    """An actor: opens its reader with the first part, and keeps it."""

    def __init__(self, work: _Work) -> None:
        self._work = work
        self._reader: PartReader | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            counts = self._score(row["number"], row["part"])
            return {"number": row["number"], "counts": pickle.dumps(counts), "kind": "", "error": ""}
        except EmotionAIError as error:
            return {"number": row["number"], "counts": b"", "kind": type(error).__name__, "error": str(error)}
        except OSError as error:
            reason = f"{error.filename or self._work.folder.path}: {error.strerror or error}"
            return {"number": row["number"], "counts": b"", "kind": "ConfigError", "error": reason}
        except Exception as error:
            reason = f"{type(error).__name__}: {error}, {_place(error)}"
            text = f"{self._work.folder.part(row['number'])}: cannot be written ({reason}); please report this"
            return {"number": row["number"], "counts": b"", "kind": "EmotionAIError", "error": one_line(text)}

    def _score(self, number: int, part: bytes) -> PartCounts:
        folder = self._work.folder
        if (done := folder.counts(number)) is not None:  # by a worker that died before it could tell
            return done
        with Journal(folder.journal(number), f"{folder.part(number).name}") as journal:
            if self._reader is None:
                journal.opening()
                self._reader = self._opened()
            journal.between()
            counts = self._reader.write(pickle.loads(part), folder.part(number), folder.metadata, journal)
            journal.finished()
            return counts

    def _opened(self) -> PartReader:
        work = self._work
        if work.gpu:
            from emotion_ai.models.device import share_gpu  # imports PyTorch

            share_gpu(work.gpu)
        size = work.batch_size or (_GPU_BATCH if work.gpu else _BATCH)
        return PartReader(work.reader.open(), size, work.reader.gives_up)


def score(
    source: PictureSource,
    dest: Path,
    reader: ReaderSource,
    options: ScoreOptions,
    identity: Mapping[str, Any],
    progress: Progress = lambda _: None,
) -> ScoreProgress:
    """Reads the pictures of a source that a folder does not have yet.

    Args:
        source: the pictures.
        dest: the folder, the same on all machines of a cluster.
        reader: what the workers read with.
        options: how.
        identity: what else a run that goes on must have the same, by name.
        progress: called after each part.

    Returns:
        The counts of the whole source.

    Raises:
        ConfigError: the folder has results of another run, or another process writes to it.
        EmotionAIError: from the reader.
    """
    identity = {**identity, **source.rules, "source": source.identity, "model": reader.identity()}
    folder = ScoreFolder(dest.absolute(), identity)
    with folder.opened(len(source.parts), options.overwrite) as done:
        before = sum(done.values(), PartCounts())
        state = ScoreProgress(before, PartCounts(), 0.0, len(source.parts), len(done))
        progress(state)
        pending = [{"number": i, "part": pickle.dumps(part)} for i, part in enumerate(source.parts) if i not in done]
        if not pending:
            return state
        with running_ray(options.address, options.workers) as ray:
            workers, gpu = worker_shares(ray.cluster_resources(), options, len(pending))
            work = _Work(folder, reader, options.batch_size, gpu)
            try:
                state = _run(ray, pending, work, workers, state, progress)
            except ray.exceptions.RayTaskError:
                raise  # an error of ours
            except ray.exceptions.RayError as error:
                raise ConfigError(_ended(folder, error)) from error
    return state


def _place(error: Exception) -> str:
    """Where in our code it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((frame for frame in reversed(frames) if "emotion_ai" in Path(frame.filename).parts), frames[-1])
    return f"{Path(frame.filename).name}:{frame.lineno}"


def worker_shares(resources: Mapping[str, float], options: ScoreOptions, parts: int) -> tuple[int, float]:
    """How many workers there are, and which share of a GPU each has, 0 to 1."""
    cpus = max(int(resources.get("CPU", 1)), 1)
    workers = min(options.workers or cpus, cpus, parts)
    gpus = int(resources.get("GPU", 0)) if options.gpu else 0
    return workers, floor(10_000 / ceil(workers / gpus)) / 10_000 if gpus else 0.0  # four digits are Ray's


def _ended(folder: ScoreFolder, error: Exception) -> str:
    reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    parts = folder.being_read()
    which = f"; {', '.join(parts[:5])} {'was' if len(parts) == 1 else 'were'} being read" if parts else ""
    return f"{folder.path}: Ray ended before the source was scored ({reason}){which}; the same command goes on"


def _run(
    ray: Any,
    pending: Sequence[dict[str, Any]],
    work: _Work,
    workers: int,
    state: ScoreProgress,
    progress: Progress,
) -> ScoreProgress:
    results = (
        ray.data.from_items(pending, override_num_blocks=len(pending))
        .map(
            _Worker,
            fn_constructor_args=(work,),
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=1,
            max_restarts=-1,
            max_task_retries=_RETRIES,
            **({"num_gpus": work.gpu} if work.gpu else {}),
        )
        .iter_rows()
    )
    started = time.monotonic()
    counts, number = state.counts, state.parts_done
    for row in results:
        if row["kind"]:
            raise getattr(errors, row["kind"], EmotionAIError)(row["error"])
        counts += pickle.loads(row["counts"])
        number += 1
        state = ScoreProgress(state.before, counts, time.monotonic() - started, state.parts, number)
        progress(state)
    return state
