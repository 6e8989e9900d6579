"""A CSV table of photos that grows as they are read, and that a later run completes."""

import csv
import io
import os
import shutil
import stat
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from emotion_ai import files
from emotion_ai.contract import EMOTIONS
from emotion_ai.errors import ConfigError
from emotion_ai.inference.results import FaceReading
from emotion_ai.inference.tables import csv_text, face_rows, photo_columns, text_cell
from emotion_ai.terminal import escaped, one_line

if sys.platform != "win32":
    import fcntl

Outcome = Literal["faces", "no face", "failed"]

_MAX_CELL = 100_000  # characters; below the csv module's own limit, which others change


class PhotoTable:
    """A table with the columns of `photo_columns`, opened for as long as the context lasts.

    The rows of a photo are appended in one piece. A run that was killed leaves at most one torn row at the end, which
    the next one drops. Only one run at a time can open a table. A file that is not a table of photos is never changed.

    Args:
        path: the file; a pipe or a device is only written to.
        classes: of the network that reads the photos.

    Raises:
        ConfigError: the file cannot be written, has other columns, or another run writes it.
    """

    def __init__(self, path: Path, classes: Sequence[str] = EMOTIONS) -> None:
        self.path = path
        self._columns = photo_columns(classes)
        self._header = csv_text([], self._columns).encode()
        self._outcomes: dict[str, Outcome] = {}
        self._rows = 0  # whole ones
        self._torn = False
        self._doubtful: set[str] = set()  # photos whose rows may not be complete
        self._modified = 0
        try:
            self._file, self._created = _opened(path)
            try:
                self._regular = stat.S_ISREG(os.fstat(self._file).st_mode)
                if self._regular:
                    self._scan()
            except BaseException:
                os.close(self._file)
                raise
        except OSError as error:
            raise self._not_written(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._regular and self._created and os.fstat(self._file).st_size == 0:
            with suppress(OSError):
                self.path.unlink()
        os.close(self._file)

    def outcome(self, photo: Path) -> Outcome | None:
        """What the table has of a photo: nothing if the photo's file was changed since the table was last written."""
        found = self._outcomes.get(text_cell(str(photo)))
        if found is None:
            return None
        try:
            return None if photo.stat().st_ctime_ns > self._modified else found
        except OSError:
            return found

    def drop(self, photos: Collection[Path]) -> None:
        """Removes the rows of some photos, and a torn row.

        Raises:
            ConfigError: the file cannot be written.
        """
        cells = {text_cell(str(photo)) for photo in photos} & self._outcomes.keys() | self._doubtful
        if not cells and not self._torn:
            return
        try:
            self._rewrite(cells)
        except OSError as error:
            raise self._not_written(error) from error
        for cell in cells:
            del self._outcomes[cell]
        self._torn, self._doubtful = False, set()

    def append(self, photo: Path, result: Sequence[FaceReading] | str) -> None:
        """Appends a row for each face of a photo, a row without a face if it has none, or a row with its error.

        Raises:
            ConfigError: the file cannot be written, or was removed.
        """
        if self._regular and os.fstat(self._file).st_nlink == 0:
            raise ConfigError(f"{self.path}: was removed while it was written; run the same command again")
        self.drop([])
        if isinstance(result, str):
            rows = [{"photo": str(photo), "error": escaped(one_line(result))}]
        else:
            rows = face_rows(result, photo) or [{"photo": str(photo)}]
        outcome: Outcome = "failed" if isinstance(result, str) else "faces" if result else "no face"
        try:
            self._write(csv_text(rows, self._columns, header=self._is_empty()).encode())
        except OSError as error:
            raise self._not_written(error) from error
        self._outcomes[text_cell(str(photo))] = outcome
        self._rows += len(rows)

    def _is_empty(self) -> bool:
        return not self._rows if not self._regular else os.fstat(self._file).st_size == 0

    def _write(self, content: bytes) -> None:
        size = os.fstat(self._file).st_size
        written = 0
        try:
            while written < len(content):  # once, except for a pipe or a full disk
                written += os.write(self._file, content[written:])
        except BaseException:
            if self._regular and written:
                os.ftruncate(self._file, size)
            raise

    def _scan(self) -> None:
        """Reads what the file has.

        Raises:
            ConfigError: it is not a table of photos.
        """
        status = os.fstat(self._file)
        self._modified = status.st_mtime_ns
        with self.path.open("rb") as content:
            start = content.read(len(self._header))
            content.seek(max(0, status.st_size - 1))
            ends_whole = content.read(1) in (b"\n", b"")
        if start != self._header and not (self._header.startswith(start) and status.st_size < len(self._header)):
            raise ConfigError(
                f"{self.path}: its first line differs from that of a table of photos, in its columns, line ends or "
                "encoding; choose another --csv, or move it away"
            )
        self._torn = 0 < status.st_size < len(self._header)
        last = ""
        wrong = 0
        try:
            with self._reading() as text:
                for row in csv.reader(text):
                    if wrong:
                        break
                    if any(len(cell) > _MAX_CELL for cell in row):
                        raise csv.Error
                    if len(row) != len(self._columns):
                        wrong = self._rows + 2
                        continue
                    last = row[0]
                    self._outcomes[last] = "failed" if row[-1] else "faces" if row[1] else "no face"
                    self._rows += 1
                else:
                    self._torn = self._torn or bool(wrong) or not ends_whole
                    self._rows -= not ends_whole and not wrong and self._rows > 0
                    wrong = 0
        except csv.Error as error:
            raise ConfigError(
                f"{self.path}, row {self._rows + 2}: is damaged; choose another --csv, or move it away"
            ) from error
        if wrong:
            raise ConfigError(f"{self.path}, row {wrong}: has another number of columns; correct it or remove the row")
        if self._torn and last:  # the torn row may be another face of the last photo
            self._outcomes[last], self._doubtful = "failed", {last}

    def _reading(self) -> io.TextIOWrapper:
        """The text of the file after its header."""
        text = open(self.path, encoding="utf-8", errors="surrogateescape", newline="")  # noqa: SIM115
        text.seek(len(self._header))
        return text

    def _rewrite(self, dropped: Collection[str]) -> None:
        real = Path(os.path.realpath(self.path))
        kept = 0
        with files.atomic_path(real) as partial:
            new = partial.open("w", encoding="utf-8", errors="surrogateescape", newline="")
            with new, self._reading() as old:
                new.write(self._header.decode())
                writer = csv.writer(new)
                for number, row in enumerate(csv.reader(old)):
                    if number < self._rows and row[0] not in dropped:
                        writer.writerow(row)
                        kept += 1
            shutil.copymode(real, partial)
            replaced = os.open(partial, os.O_RDWR | os.O_APPEND)
            _lock(replaced)
        os.close(self._file)
        self._file, self._rows = replaced, kept

    def _not_written(self, error: OSError) -> ConfigError:
        return ConfigError(f"{self.path}: cannot be written ({error.strerror}); choose another --csv")


def _opened(path: Path) -> tuple[int, bool]:
    """A locked descriptor of a table, and whether the file is new.

    Raises:
        OSError: it cannot be opened.
        ConfigError: another run has it open.
    """
    while True:
        new = not path.exists()
        regular = new or path.is_file()
        file = os.open(path, (os.O_RDWR | os.O_CREAT if regular else os.O_WRONLY) | os.O_APPEND, 0o666)
        try:
            _lock(file)
        except BlockingIOError as error:
            os.close(file)
            raise ConfigError(f"{path}: another run writes this table; wait for it, or choose another --csv") from error
        with suppress(FileNotFoundError):
            if not regular or os.path.samestat(os.fstat(file), path.stat()):
                return file, new
        os.close(file)  # another run has replaced the file in between


def _lock(file: int) -> None:
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        pass  # a file system, or a device, without locks
