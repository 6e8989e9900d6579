"""What the page needs to run: models that a server serves, and a private folder for uploads."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from emotion_ai.published import list_versions

_MEMORY = Path("/dev/shm")


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
    """A folder for uploads that only this user can read, in memory if the system has /dev/shm.

    Must be entered before Gradio is imported.
    """
    memory = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="emotion-ai-web-", dir=memory))  # mode 0700
    names = ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_OFFLINE")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(zip(names, (str(folder), "False", "1"), strict=True))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
