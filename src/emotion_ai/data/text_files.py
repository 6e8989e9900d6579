"""Opening text files, plain or compressed, with bounds on what they may unpack to."""

import bz2
import codecs
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast

import rich.progress
from rich.markup import escape

from emotion_ai.errors import DataError
from emotion_ai.terminal import Console, printable

MAX_UNPACKED = 1024**3
"""Bytes that a compressed file may unpack to; a plain file may have any size."""

_MAGIC = {b"PK\x03\x04": "zip", b"\x1f\x8b": "gz", b"\xfd7zXZ\x00": "xz", b"BZh": "bz2"}
_SUFFIXES = {
    ".zip": "zip",
    **dict.fromkeys((".gz", ".tgz"), "gz"),
    **dict.fromkeys((".xz", ".txz"), "xz"),
    **dict.fromkeys((".bz2", ".tbz2", ".tbz"), "bz2"),
}
_BLOCK = 1 << 20


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """The text of a CSV file: plain, .gz, .xz, .bz2, or the only CSV file of a .zip or .tar, itself compressed or not.

    It is UTF-8, or UTF-16 or UTF-32 with a byte order mark; newlines are as they are.

    Raises:
        DataError: an archive with another number of CSV files, a binary file, or more than `MAX_UNPACKED` bytes.
        Others: what the decompressors raise for damaged files.
    """
    console = Console(stderr=True)
    with rich.progress.open(
        path,
        "rb",
        description=escape(f"reading {printable(path.name)}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as raw:
        kind = _kind(path, raw.read(64))
        raw.seek(0)
        if kind == "zip":
            with (
                zipfile.ZipFile(raw) as archive,
                archive.open(_csv_of_zip(path, archive)) as member,
                _ahead(_bounded(path, member)) as stream,
            ):
                yield _decoded(path, stream)
        elif _is_tar(unpacked := _unpacked(path, raw, kind)):
            name = _csv_of_tar(path, unpacked)
            raw.seek(0)
            with tarfile.open(fileobj=_unpacked(path, raw, kind), mode="r|") as tar:
                found = next(tar.extractfile(entry) for entry in tar if entry.name == name)
                with _ahead(_bounded(path, cast(BinaryIO, found))) as stream:
                    yield _decoded(path, stream)
        elif kind:
            with _ahead(unpacked) as stream:
                yield _decoded(path, stream)
        else:
            yield _decoded(path, unpacked)


def _kind(path: Path, head: bytes) -> str:
    """How a file is compressed, by its content; by its suffix only where the content could be anything.

    Browsers unpack a `.csv.gz` on the way and keep its name.
    """
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    text = head.removeprefix(codecs.BOM_UTF8)
    is_table = text.isascii() and b"\0" not in text and any(separator in text for separator in (b",", b";", b"\t"))
    return "" if is_table else _SUFFIXES.get(path.suffix.lower(), "")


class _Bounded(io.RawIOBase):
    """Reads a stream, and raises once it has given more than `MAX_UNPACKED` bytes: headers may lie."""

    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self._path, self._stream, self._left = path, stream, MAX_UNPACKED

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview[int]") -> int:  # type: ignore[override]
        content = self._stream.read(len(buffer))
        self._left -= len(content)
        if self._left < 0:
            raise _too_large(self._path)
        buffer[: len(content)] = content
        return len(content)


class _Ahead(io.RawIOBase):
    """Reads a stream one block ahead, in a thread: decompressors work while the text is parsed."""

    def __init__(self, stream: IO[bytes], pool: ThreadPoolExecutor) -> None:
        self._stream, self._pool = stream, pool
        self._block = b""
        self._next = pool.submit(stream.read, _BLOCK)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview[int]") -> int:  # type: ignore[override]
        if not self._block and (block := self._next.result()):
            self._block = block
            self._next = self._pool.submit(self._stream.read, _BLOCK)
        content, self._block = self._block[: len(buffer)], self._block[len(buffer) :]
        buffer[: len(content)] = content
        return len(content)


@contextmanager
def _ahead(stream: IO[bytes]) -> Iterator[io.BufferedReader]:
    with ThreadPoolExecutor(1, "emotion-ai-unpack") as pool:
        yield io.BufferedReader(_Ahead(stream, pool), _BLOCK)


def _too_large(path: Path) -> DataError:
    return DataError(f"{path}: unpacks to more than {MAX_UNPACKED // 1024**2} MiB; unpack it and give the CSV itself")


def _bounded(path: Path, stream: IO[bytes]) -> io.BufferedReader:
    return io.BufferedReader(_Bounded(path, stream), _BLOCK)


def _unpacked(path: Path, raw: BinaryIO, kind: str) -> io.BufferedReader:
    match kind:
        case "gz":
            return _bounded(path, cast(IO[bytes], gzip.open(raw)))
        case "xz":
            return _bounded(path, cast(IO[bytes], lzma.open(raw)))
        case "bz2":
            return _bounded(path, cast(IO[bytes], bz2.open(raw)))
    return io.BufferedReader(cast(io.RawIOBase, raw), _BLOCK)


def _is_tar(stream: io.BufferedReader) -> bool:
    return stream.peek(512)[257:262] == b"ustar"


def _csv_of_tar(path: Path, stream: io.BufferedReader) -> str:
    names = []
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for entry in archive:
            archive.members = []  # type: ignore[attr-defined]  # a stream keeps them for nothing
            if entry.isreg():
                names.append(entry.name)
    return _only_csv(path, names)


def _csv_of_zip(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    entry = archive.getinfo(_only_csv(path, archive.namelist()))
    if entry.flag_bits & 1:
        raise DataError(f"{path}: is encrypted; unpack it and give the CSV")
    if entry.file_size > MAX_UNPACKED:
        raise _too_large(path)
    return entry


def _only_csv(path: Path, names: list[str]) -> str:
    files = [name for name in names if not name.endswith("/") and not _is_litter(name)]
    found = [name for name in files if name.lower().endswith(".csv")]
    if len(found) != 1:
        shown = f" ({', '.join((found or files)[:5])})" if files else ""
        raise DataError(f"{path}: must hold one CSV file, got {len(found)}{shown}; unpack it and give the CSV")
    return found[0]


def _is_litter(name: str) -> bool:
    parts = Path(name).parts
    return "__MACOSX" in parts or parts[-1].startswith(".")


def _decoded(path: Path, stream: io.BufferedReader) -> io.TextIOWrapper:
    encoding = text_encoding(stream.peek(64)[:64])
    if encoding is None:
        raise DataError(f"{path}: is not a CSV text file (it is binary); give the CSV or its .zip, .gz, .xz or .bz2")
    text = io.TextIOWrapper(stream, encoding, newline="")
    text._CHUNK_SIZE = _BLOCK  # type: ignore[attr-defined]  # of 8 KiB, every row would be put together from several
    return text


def text_encoding(head: bytes) -> str | None:
    """The encoding of a text by its first bytes, as `open_text` knows them; None if they are not text."""
    if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "utf-32"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if b"\0" in head:
        pairs = (head[0::2], head[1::2])
        for zeros, text, encoding in ((*pairs[::-1], "utf-16-le"), (*pairs, "utf-16-be")):
            if not zeros.strip(b"\0") and b"\0" not in text:
                return encoding
        return None
    return "utf-8-sig"
