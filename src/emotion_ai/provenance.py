"""Where results come from: the record of a training run, and versions, processor and source revision."""

import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from emotion_ai.errors import CheckpointError
from emotion_ai.legacy import upgrade_record

_SPLITS = ("train", "val", "test")
_PACKAGES = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "numpy")


@dataclass(frozen=True)
class SplitRecord:
    """One split of a run's data.

    Attributes:
        source: name of the file or folder.
        fingerprint: SHA-256 of the source's bytes.
    """

    faces: int
    source: str
    fingerprint: str


@dataclass(frozen=True)
class DataRecord:
    """The data of a run.

    Attributes:
        how: what made the splits, e.g. "Usage: Training, PublicTest".
        training_duplicates_of_test_removed: training faces left out because the test split has the same pixels.
    """

    how: str
    train: SplitRecord
    val: SplitRecord | None = None
    test: SplitRecord | None = None
    training_duplicates_of_test_removed: int = 0

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        train, val, test = (SplitRecord(**content[name]) if content.get(name) else None for name in _SPLITS)
        if train is None:
            raise KeyError("train")
        return cls(content["how"], train, val, test, **_only(content, "training_duplicates_of_test_removed"))


@dataclass(frozen=True)
class RunRecord:
    """What run.json, and the record inside a checkpoint, hold about a training run.

    Fields that a checkpoint lacks (one written during training has no metrics; one from elsewhere nothing) are empty.

    Attributes:
        config: the settings of the run, nested as in the configs.
        metrics: "val/..." and "test/..." of the best weights.
        calibration: what was fitted on the validation split after training.
        epochs: how many were trained.
        seconds: of training.
        revision: of the source code.
    """

    config: dict[str, Any] = field(default_factory=dict)
    data: DataRecord | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    calibration: dict[str, float] = field(default_factory=dict)
    epochs: int | None = None
    seconds: float | None = None
    revision: str | None = None
    python: str | None = None
    machine: str | None = None
    packages: dict[str, str] = field(default_factory=dict)

    @property
    def uncertain_below(self) -> float:
        """Confidence below which the network's emotion counts as uncertain; 0 if no threshold was chosen.

        Raises:
            ValueError: what is stored is not a number from 0 to 1.
        """
        return self._threshold("uncertain_below", 0.0)

    def thresholds(self, classes: Sequence[str]) -> tuple[float, ...]:
        """`uncertain_below` for each class: its own, "uncertain_below/NAME" in the calibration, or that of all.

        Raises:
            ValueError: what is stored is not a number from 0 to 1.
        """
        common = self.uncertain_below
        return tuple(self._threshold(f"uncertain_below/{name}", common) for name in classes)

    @property
    def neutral_lead(self) -> float:
        """By how much an emotion's probability must exceed that of Neutral to be the verdict; 0 if none was chosen.

        Raises:
            ValueError: what is stored is not a number from 0 to 1.
        """
        return self._threshold("neutral_lead", 0.0)

    def _threshold(self, key: str, default: float) -> float:
        threshold: Any = self.calibration.get(key, default)
        if not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
            raise ValueError(f"{key} must be between 0 and 1, got {threshold!r}")
        return float(threshold)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Reads a record of this or an older version; unknown keys are ignored.

        Raises:
            ValueError: a value of another kind than a record has.
        """
        try:
            content = upgrade_record(content)
            data = DataRecord.from_dict(content["data"]) if content.get("data") else None
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"its data or config is not that of a run: {error!r}") from error
        for name in ("config", "metrics", "calibration", "packages"):
            if not isinstance(content.get(name, {}), dict):
                raise ValueError(f"{name} must be a table, got {content[name]!r}")
        for name in ("metrics", "calibration"):
            for key, value in content.get(name, {}).items():
                if not isinstance(value, int | float):
                    raise ValueError(f"{name}.{key} must be a number, got {value!r}")
        names = [name for name in cls.__dataclass_fields__ if name != "data"]
        return cls(data=data, **_only(content, *names))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a run.json.

        Raises:
            CheckpointError: it is damaged, or something else.
            OSError: it cannot be read.
        """
        try:
            content = json.loads(path.read_bytes())
            if not isinstance(content, dict):
                raise ValueError(f"holds a {type(content).__name__}")
            return cls.from_dict(content)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path}: not a readable record of a run ({error}); delete it, and resume") from error

    def as_dict(self) -> dict[str, Any]:
        """For JSON; fields without a value are left out."""
        content = {key: value for key, value in asdict(self).items() if value not in (None, {})}
        if self.data is not None:
            content["data"] = {key: value for key, value in content["data"].items() if value is not None}
        return content


def _only(content: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: content[name] for name in names if name in content}


def environment() -> dict[str, Any]:
    """Versions, processor and git revision; the revision is None outside a checkout, or without git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        revision = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        revision = ""
    return {
        "revision": revision or None,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "packages": {name: version(name) for name in _PACKAGES},
    }
