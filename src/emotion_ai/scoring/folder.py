"""The folder of a run's results: a Parquet file for each part of the source, and the state with which a run goes on."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emotion_ai import files
from emotion_ai.errors import ConfigError
from emotion_ai.extras import optional_imports
from emotion_ai.scoring.checksum import is_intact
from emotion_ai.scoring.part_reader import COUNTS, PartCounts

with optional_imports("score"):
    import pyarrow as pa
    from pyarrow import parquet

STATE = "_state.json"
"""Like other names that begin with an underscore or a dot, passed over by what reads a folder of Parquet files."""

FORMAT = 2
"""Of states and parts; others are not continued."""

_PART = re.compile(r"part-\d{6,}\.parquet")
_RUN = "emotion_ai.run"  # key of a part's metadata
_OTHERS = "is damaged, or of something else; move it away, or choose another DEST"
_WHAT = {"source": "a source of other files, names or content", "model": "another model"}


def is_result(name: str) -> bool:
    """Whether a run names one of its files so, apart from hidden ones."""
    return name == STATE or _PART.fullmatch(name) is not None


@dataclass(frozen=True)
class ScoreFolder:
    """A folder that holds the results of one run, of one source and model.

    Attributes:
        path: of the folder.
        identity: the source, model and options by name, for JSON.
    """

    path: Path
    identity: Mapping[str, Any]

    @property
    def run(self) -> str:
        """What tells the run's parts from those of others."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()

    def part(self, number: int) -> Path:
        """The file of a part."""
        return self.path / f"part-{number:06d}.parquet"

    def journal(self, number: int) -> Path:
        """The file in which a part's worker writes what it does."""
        return self.path / f".part-{number:06d}.reading"

    @property
    def metadata(self) -> dict[str, str]:
        """Of the run's parts."""
        return {_RUN: self.run}

    @contextmanager
    def opened(self, parts: int, overwrite: bool = False) -> Iterator[dict[int, PartCounts]]:
        """The counts of the parts that are finished, by number; the folder is locked for as long as the context lasts.

        Args:
            parts: of the source.
            overwrite: removes the results of another run, but no file of anything else.

        Raises:
            ConfigError: the folder has results of another run or of something else, or another process writes to it.
            OSError: it cannot be written to.
        """
        with files.locked_folder(self.path):
            self._check(parts, overwrite)
            done = {number: counts for number in range(parts) if (counts := self.counts(number)) is not None}
            self._remove_journals()  # whoever ended the last run, the pictures need not have
            state = {"format": FORMAT, "run": self.run, "identity": dict(self.identity), "parts": parts}
            files.write_json(self.path / STATE, {**state, "finished": False}, sync=True)
            try:
                yield done
            finally:
                for partial in self.path.glob(".part-*.partial"):  # of workers that were killed
                    partial.unlink(missing_ok=True)
                self._remove_journals()
            if all(self.part(number).exists() for number in range(parts)):
                files.write_json(self.path / STATE, {**state, "finished": True}, sync=True)

    def being_read(self) -> list[str]:
        """The files of the parts that workers have begun and not finished."""
        return sorted(f"{path.stem[1:]}.parquet" for path in self.path.glob(".part-*.reading"))

    def _remove_journals(self) -> None:
        for path in self.path.glob(".part-*.reading"):
            path.unlink(missing_ok=True)

    def counts(self, number: int) -> PartCounts | None:
        """The counts of a part that is finished; None for one that is missing or damaged, which is written anew.

        All bytes are read: with a few hundred bytes for each picture, this takes less time than to open the file.

        Raises:
            ConfigError: the part is of another run, or of something else.
        """
        path = self.part(number)
        metadata = _metadata(path)
        if metadata is None:
            return None
        if _RUN.encode() not in metadata:
            raise ConfigError(f"{path}: {_OTHERS}")
        if not is_intact(path):
            return None
        if metadata[_RUN.encode()].decode() != self.run:
            raise ConfigError(f"{path}: belongs to another run; replace all with --overwrite, or choose another DEST")
        return PartCounts(**json.loads(metadata[COUNTS.encode()]))

    def _check(self, parts: int, overwrite: bool) -> None:
        state = self._state()
        if state is None:
            if next(self.path.glob("*.parquet"), None) is not None:
                raise ConfigError(
                    f"{self.path}: has Parquet files of something else; move them away, or choose another DEST"
                )
            return
        found = sorted(path for path in self.path.glob("*.parquet") if is_result(path.name))
        if overwrite:
            for path in found:
                if _RUN.encode() not in (_metadata(path) or {}):
                    raise ConfigError(f"{path}: {_OTHERS}")
            for path in found:
                path.unlink()
            return
        if not found:  # whatever was to be scored
            return
        if state["format"] != FORMAT:
            raise ConfigError(f"{self.path / STATE}: was written by another version; start again with --overwrite")
        before, now = state["identity"], json.loads(json.dumps(self.identity))
        for name in [*now, *(name for name in before if name not in now)]:
            if before.get(name) != now.get(name):
                values = f"{name} {json.dumps(before.get(name))}, now it is {json.dumps(now.get(name))}"
                raise ConfigError(
                    f"{self.path}: was written with {_WHAT.get(name, values)}; go on with the same, replace all with "
                    "--overwrite, or choose another DEST"
                )
        if state["parts"] != parts:
            raise ConfigError(
                f"{self.path}: was written in {state['parts']} parts, now there are {parts}; use --overwrite"
            )

    def _state(self) -> dict[str, Any] | None:
        """What a run wrote down; None in a folder without a run.

        Raises:
            ConfigError: the file is not one of a run, or is damaged.
        """
        path = self.path / STATE
        try:
            state = json.loads(files.read_text(path))
            known = {"format", "run", "identity", "parts"} <= state.keys()
        except FileNotFoundError:
            return None
        except (ValueError, AttributeError, RecursionError):
            known = False
        if not known:
            raise ConfigError(f"{path}: {_OTHERS}")
        return state


def _metadata(path: Path) -> dict[bytes, bytes] | None:
    """Of a part; None if it is missing or damaged."""
    try:
        return parquet.read_metadata(path).metadata or {}
    except (OSError, ValueError, pa.ArrowException):
        return None
