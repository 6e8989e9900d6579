"""What the page needs to run: models that a server serves, and a private folder for Gradio."""

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from emotion_ai.published import list_versions

_MEMORY = Path("/dev/shm")
_PREFIX = "emotion-ai-web-"
_LOCKING_SECONDS = 60.0


@dataclass(frozen=True)
class ModelSource:
    """The models that the page uses: the server's address, and the published folder if it is known."""

    url: str
    models: Path | None = None

    @property
    def versions(self) -> list[int]:
        """Versions of `face` in the folder, ascending; none without a folder."""
        return list_versions(self.models / "face") if self.models else []


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that only this user can read, in memory if the system has /dev/shm; Gradio needs one.

    Must be entered before Gradio is imported. Folders of pages that were killed are removed; a running page holds a
    lock in its own.
    """
    parent = _MEMORY if os.access(_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    _remove_abandoned(parent)
    unlocked = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=parent))  # mode 0700
    lock = _locked(unlocked)
    folder = unlocked.rename(parent / unlocked.name.removeprefix("."))
    names = ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_OFFLINE")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(zip(names, (str(folder), "False", "1"), strict=True))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _remove_abandoned(parent: Path) -> None:
    """Removes this user's folders whose page no longer runs."""
    for folder in [*parent.glob(f"{_PREFIX}*"), *parent.glob(f".{_PREFIX}*")]:
        with suppress(OSError):
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                continue
            if folder.name.startswith(".") and found.st_mtime > time.time() - _LOCKING_SECONDS:
                continue  # about to be locked
            lock = _locked(folder)
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _locked(folder: Path) -> int:
    """A descriptor that holds a folder's lock until it is closed or the process ends.

    Raises:
        OSError: another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
