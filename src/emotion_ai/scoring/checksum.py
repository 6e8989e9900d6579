"""A checksum inside a Parquet file, of all its other bytes: whichever of them changes later, it is noticed."""

import zlib
from pathlib import Path
from typing import BinaryIO

NO_CHECKSUM = {"emotion_ai.crc32": "00000000"}
"""Metadata of a file, in which `write_checksum` puts the CRC-32."""

_KEY, _EMPTY = (text.encode() for text in next(iter(NO_CHECKSUM.items())))
_TAIL = 8  # bytes after the metadata, which begin with its size
_CHUNK = 2**20


def write_checksum(path: Path) -> None:
    """Puts the checksum into a Parquet file that was written with `NO_CHECKSUM`."""
    with path.open("r+b") as file:
        place, found = _checksum(file)
        file.seek(place)
        file.write(found)


def is_intact(path: Path) -> bool:
    """Whether no byte of a file has changed since its checksum was written.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        try:
            place, found = _checksum(file)
        except ValueError:
            return False
        file.seek(place)
        return file.read(len(found)) == found


def _checksum(file: BinaryIO) -> tuple[int, bytes]:
    """The place of the checksum, and that of the other bytes.

    Raises:
        ValueError: the file has no place for one.
    """
    end = file.seek(0, 2)
    file.seek(max(end - _TAIL, 0))
    start = end - _TAIL - int.from_bytes(file.read(4), "little")
    if start < 0:
        raise ValueError("no Parquet file")
    file.seek(start)
    place = start + file.read().rindex(_KEY) + len(_KEY) + 2  # Thrift puts type and size before a text
    file.seek(0)
    total, left = 0, place
    while chunk := file.read(min(left, _CHUNK)):
        total, left = zlib.crc32(chunk, total), left - len(chunk)
    file.seek(place + len(_EMPTY))
    while chunk := file.read(_CHUNK):
        total = zlib.crc32(chunk, total)
    return place, f"{total:08x}".encode()
