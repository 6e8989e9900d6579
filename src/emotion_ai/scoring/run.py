"""Scores a source: its parts are read by Ray's actors, each with its own reader."""

import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from emotion_ai import errors
from emotion_ai.errors import EmotionAIError
from emotion_ai.inference.results import PhotoReader
from emotion_ai.scoring.folder import ScoreFolder
from emotion_ai.scoring.local_ray import running_ray
from emotion_ai.scoring.part_reader import PartCounts, PartReader
from emotion_ai.scoring.sources import PictureSource

_RETRIES = 5  # of a part whose worker dies; a picture that kills each of them must not be read for ever


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
        batch_size: pictures whose faces are read together.
        gpu: whether the workers share the cluster's GPUs.
        overwrite: replaces the results of another run.
    """

    address: str | None = None
    workers: int | None = None
    batch_size: int = 32
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
    """What each worker needs."""

    folder: ScoreFolder
    reader: ReaderSource
    batch_size: int


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

    def _score(self, number: int, part: bytes) -> PartCounts:
        folder = self._work.folder
        if (done := folder.counts(number)) is not None:  # by a worker that died before it could tell
            return done
        if self._reader is None:
            reader = self._work.reader.open()
            self._reader = PartReader(reader, self._work.batch_size, self._work.reader.gives_up)
        return self._reader.write(pickle.loads(part), folder.part(number), folder.metadata)


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
    folder = ScoreFolder(dest.absolute(), {**identity, "source": source.identity, "model": reader.identity()})
    with folder.opened(len(source.parts), options.overwrite) as done:
        before = sum(done.values(), PartCounts())
        state = ScoreProgress(before, PartCounts(), 0.0, len(source.parts), len(done))
        progress(state)
        pending = [{"number": i, "part": pickle.dumps(part)} for i, part in enumerate(source.parts) if i not in done]
        if not pending:
            return state
        with running_ray(options.address, options.workers) as ray:
            state = _run(ray, pending, _Work(folder, reader, options.batch_size), options, state, progress)
    return state


def _run(
    ray: Any,
    pending: Sequence[dict[str, Any]],
    work: _Work,
    options: ScoreOptions,
    state: ScoreProgress,
    progress: Progress,
) -> ScoreProgress:
    resources = ray.cluster_resources()
    cpus = max(int(resources.get("CPU", 1)), 1)
    workers = min(options.workers or cpus, cpus, len(pending))
    gpus = resources.get("GPU", 0) if options.gpu else 0
    share = {"num_gpus": min(gpus / workers, 1)} if gpus else {}
    results = (
        ray.data.from_items(pending, override_num_blocks=len(pending))
        .map(
            _Worker,
            fn_constructor_args=(work,),
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=1,
            max_restarts=-1,
            max_task_retries=_RETRIES,
            **share,
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
