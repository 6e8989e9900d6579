"""The folder of a run: what it holds, and where a resumed run goes on. Nothing in it depends on where it lies."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only

from emotion_ai.errors import CheckpointError, ConfigError
from emotion_ai.models import load_network
from emotion_ai.models.checkpoint import read_ckpt
from emotion_ai.provenance import DataRecord, RunRecord
from emotion_ai.training.config import TrainConfig, changed_settings

_RESULTS = ("network.safetensors", "run.json")
_LENGTH = ("epochs", "patience", "trainer.max_steps", "trainer.max_time")
"""Settings that a resumed run may change: when it ends."""
_TRAINING_STATE = {"epoch", "global_step", "loops", "callbacks", "optimizer_states", "lr_schedulers"}


@dataclass(frozen=True)
class PreviousRun:
    """What a folder holds of an unfinished or shorter run; nothing of a new one.

    Attributes:
        last: the checkpoint to continue from.
        score: of the best epoch when `last` was written.
        scores: of the best epoch's checkpoint, by file; there are several if a version before 0.2 resumed the run.
        records: by file.
    """

    last: Path | None = None
    score: float | None = None
    scores: Mapping[Path, float] = field(default_factory=dict)
    records: Mapping[Path, RunRecord] = field(default_factory=dict)


def previous_run(config: TrainConfig, settings: Mapping[str, Any]) -> PreviousRun:
    """What `config.out` holds to continue from.

    Args:
        settings: as recorded.

    Raises:
        ConfigError: the folder holds a run with other settings or more epochs, or one that is not to be resumed.
        CheckpointError: a checkpoint is damaged, or the best epoch's is missing.
    """
    out = Path(config.out)
    last, best = out / "last.ckpt", sorted(out.glob("best*.ckpt"), key=lambda path: (path.name != "best.ckpt", path))
    if not config.resume:
        if best or any((out / name).exists() for name in ("last.ckpt", *_RESULTS)):
            raise ConfigError(f"{out}: already holds a run; add resume=true to continue it, or give another out=")
        return PreviousRun()
    resumed = last.is_file()
    if not resumed and (out / "run.json").exists():
        raise ConfigError(f"{out}: holds a finished run without last.ckpt, so it cannot go on; give another out=")
    records = {path: load_network(path, config.task.name).record for path in ([last] if resumed else []) + best}
    for path, record in records.items():
        changed = changed_settings(settings, record.config)
        if changed := [text for text in changed if text.partition("=")[0] not in _LENGTH]:
            raise ConfigError(f"{path}: was trained with {', '.join(changed)}; resume with the same settings")
    scores = {path: score for path in best if (score := _score(path, read_ckpt(path))) is not None}
    if not resumed:
        return PreviousRun(scores=scores, records=records)
    state = read_ckpt(last)
    if missing := sorted(_TRAINING_STATE - state.keys()):
        raise CheckpointError(f"{last}: has no {', '.join(missing)}, so training cannot go on; give another out=")
    if not isinstance(state["epoch"], int):
        raise CheckpointError(f"{last}: its epoch is {state['epoch']!r}; it is damaged, so give another out=")
    if state["epoch"] >= config.epochs:
        trained = state["epoch"] + 1
        raise ConfigError(f"{out}: was trained for {trained} epochs; epochs must be at least that, got {config.epochs}")
    score = _score(last, state)
    if score is not None and not scores:
        raise CheckpointError(f"{out / 'best.ckpt'}: is missing beside last.ckpt; copy it too, or give another out=")
    return PreviousRun(last, score, scores, records)


def choose_best(out: Path, previous: PreviousRun, mode: str) -> float:
    """The score of the best epoch, whose checkpoint is then `best.ckpt` and the only one.

    Args:
        mode: "min" or "max".

    Raises:
        CheckpointError: the best epoch of `last.ckpt` is in none of the files.
    """
    choose = min if mode == "min" else max
    best = choose(previous.scores, key=lambda path: previous.scores[path])
    score = previous.scores[best]
    if previous.score is not None and choose(score, previous.score) != score:
        raise CheckpointError(
            f"{best}: is of another run: it reached {score:.8g}, and last.ckpt has seen {previous.score:.8g}; "
            "copy the whole folder again, or give another out="
        )
    if getattr(rank_zero_only, "rank", 0) == 0:
        best.replace(out / "best.ckpt")
        for other in previous.scores.keys() - {best, out / "best.ckpt"}:
            other.unlink(missing_ok=True)
    return score


def check_same_data(records: Mapping[Path, RunRecord], now: DataRecord) -> None:
    """Checks that a run goes on with the faces that it began with, as files of one name may differ.

    Raises:
        ConfigError: a split has other faces.
    """
    for path, record in records.items():
        for name in ("train", "val", "test"):
            old, new = getattr(record.data, name, None), getattr(now, name)
            if old is not None and (new is None or (old.faces, old.fingerprint) != (new.faces, new.fingerprint)):
                other = f"{old.faces} faces of {old.source}"
                raise ConfigError(f"{path}: its {name} split was another one ({other}); resume with the same data")


def _score(path: Path, checkpoint: Mapping[str, Any]) -> float | None:
    """The validation metric of the best epoch so far; None if none was validated."""
    try:
        scores = [state.get("best_model_score") for state in checkpoint["callbacks"].values()]
        found = [float(score) for score in scores if score is not None]
    except (KeyError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: has no readable score ({error!r}); give another out=") from error
    return found[0] if found else None
