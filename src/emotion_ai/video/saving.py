"""What a run writes as it goes, and goes on with after it was killed: files that grow, and its state."""

import hashlib
import json
import os
import signal
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import numpy as np

from emotion_ai import files
from emotion_ai.client.address import without_login
from emotion_ai.contract import CROP_SIZE
from emotion_ai.errors import ConfigError

MODEL_TOLERANCE = 5e-3
"""By how much the answers of one model may differ, in pixels and probabilities, as on a CPU and a GPU."""

FORMAT = 2
"""Of states; others are not continued."""

_BLOCK, _BLOCKS = 2**20, 64  # bytes, and how many of these of a source are compared
_PATTERNS = 4


class GrowingFile:
    """A text file that only grows, opened for as long as the context lasts.

    Args:
        path: the file.
        keep: bytes of it to keep; those after them, of a run that was killed, are cut off. None begins a new file.

    Raises:
        ConfigError: it is not a regular file, or shorter than that.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, keep: int | None = None) -> None:
        self.path = path
        if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
            raise ConfigError(f"{path}: not a regular file; remove it, or choose another --out")
        if keep is not None:
            size = path.stat().st_size if path.exists() else 0
            if size < keep:
                raise ConfigError(
                    f"{path}: has {size} bytes where {keep} were written before; it was changed, so start again with "
                    "--overwrite"
                )
        self._file = path.open("wb" if keep is None else "r+b" if path.exists() else "wb")
        self._file.truncate(keep or 0)
        self.size = self._file.seek(keep or 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, text: str) -> None:
        """Appends text, which other processes see after `flush`."""
        self.size += self._file.write(text.encode("utf-8"))

    def flush(self) -> None:
        """Waits until what was appended is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a run's state, whole or not at all, and waits until it is on the disk."""
    files.write_text(path, json.dumps(state) + "\n", sync=True)


def read_state(path: Path) -> dict[str, Any] | None:
    """The state of the run that wrote to a folder; None if there is none.

    Raises:
        ConfigError: it is damaged.
        OSError: it cannot be read.
    """
    try:
        state = json.loads(files.read_text(path, limit=2**28))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is damaged; start again with --overwrite") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ConfigError(f"{path}: was written by another version, or something else; start again with --overwrite")
    return state


def source_identity(spec: str | Path | int) -> dict[str, Any]:
    """What tells a source from another one: size and content of a file; of a camera or URL, without a password, itself.

    Of a file larger than 64 MiB, 64 pieces of 1 MiB are compared; of a folder the names and sizes of its files.
    """
    path = Path(str(spec))
    if str(spec).isdigit() or not path.exists() or path.is_char_device():
        return {"address": without_login(str(spec))}
    if path.is_dir():
        entries = sorted((entry.name, entry.stat().st_size) for entry in os.scandir(path) if entry.is_file())
        return {"files": len(entries), "sha256": hashlib.sha256(json.dumps(entries).encode()).hexdigest()}
    digest, size = hashlib.sha256(), path.stat().st_size
    step = max((size - _BLOCK) // (_BLOCKS - 1), _BLOCK)
    with files.open_regular(path) as file:
        for start in range(0, size, step):
            file.seek(start)
            digest.update(file.read(_BLOCK))
    return {"bytes": size, "sha256": digest.hexdigest()}


def model_identity(reader: object) -> dict[str, Any]:
    """What tells a model from another one: its classes, and what it reads in a few patterns.

    A function as reader has neither.

    Raises:
        ClientError: the server does not answer.
    """
    if not (hasattr(reader, "read_crops") and hasattr(reader, "class_names")):
        return {}
    rng, (y, x) = np.random.default_rng(0), np.mgrid[:CROP_SIZE, :CROP_SIZE] / CROP_SIZE
    waves = [np.sin(x * a + y * b) + np.sin(y * c - x * d) for a, b, c, d in rng.uniform(1, 12, (_PATTERNS, 4))]
    found = reader.read_crops([(wave * 60 + 128).clip(0, 255).astype(np.uint8) for wave in waves])
    parts = [found.keypoints, found.over_classes, found.uncertain_below]
    numbers = [np.nan_to_num(part).ravel().tolist() for part in parts if part is not None]
    return {"classes": list(found.classes), "answers": [[round(n, 4) for n in part] for part in numbers]}


def check_same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Checks that a run goes on with what it began with.

    Args:
        path: of the state, for the message.
        before: the source, model and options that it began with, by name.
        now: those that are given now.

    Raises:
        ConfigError: one of them differs; the message names it.
    """
    for name in [*now, *(name for name in before if name not in now)]:
        if not _equal(before.get(name), now.get(name), MODEL_TOLERANCE if name == "model" else 0.0):
            raise ConfigError(f"{path.parent}: {_difference(name, before.get(name), now.get(name))}")


def _equal(first: Any, second: Any, tolerance: float) -> bool:
    """Whether two JSON values are the same, numbers within a tolerance."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_equal(first[key], second[key], tolerance) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(partial(_equal, tolerance=tolerance), first, second))
    if isinstance(first, float) and isinstance(second, float):
        return abs(first - second) <= tolerance
    return bool(first == second)


def _difference(name: str, before: Any, now: Any) -> str:
    if name == "source":
        return "was written from a source of other content; resume with the same one, or choose another --out"
    if name == "model":
        return "was written with a model that reads otherwise; resume with the same one, or choose another --out"
    return (
        f"was written with {name} {json.dumps(before)}, now it is {json.dumps(now)}; resume with the same options, or "
        "choose another --out"
    )


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM are handled after the block, so that what it writes belongs together."""
    if threading.current_thread() is not threading.main_thread():  # signals are handled in that one alone
        yield
        return
    caught: list[tuple[int, FrameType | None]] = []
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    callables = {number: handler for number, handler in before.items() if callable(handler)}
    for number in callables:
        signal.signal(number, lambda number, frame: caught.append((number, frame)))
    try:
        yield
    finally:
        for number, handler in callables.items():
            signal.signal(number, handler)
        for number, frame in caught[:1]:
            callables[number](number, frame)
