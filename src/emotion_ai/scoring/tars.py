"""Tar shards, as WebDataset writes them: files that share their name up to its first dot are one sample."""

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import BinaryIO

from emotion_ai.errors import ImageError
from emotion_ai.extras import optional_imports
from emotion_ai.inference.photo_files import is_photo_name
from emotion_ai.vision.photo import check_size

with optional_imports("score"):
    import pyarrow as pa

TAR_COLUMNS = pa.schema([(name, pa.string()) for name in ("key", "json", "txt", "cls")])
"""Of tar shards: the name that a sample's files share, and the texts among these by their suffix."""

_MAX_TEXT = 2**24  # bytes


@dataclass
class TarSample:
    """A sample.

    Attributes:
        offset: of its first header, in bytes.
        key: what the names of its files begin with.
        pictures: pairs of a file's name and its content, or why it has none.
        texts: by the names of `TAR_COLUMNS`.
        damage: why the file cannot be read from here on.
    """

    offset: int
    key: str = ""
    pictures: list[tuple[str, bytes | ImageError]] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    damage: str | None = None


def tar_samples(file: BinaryIO, shard: str, contents: bool = True) -> Iterator[TarSample]:
    """The samples of a tar file, compressed or not, from its position on; damage ends them with a sample that has it.

    Args:
        file: opened in binary mode.
        shard: its name, for messages.
        contents: without them, only the headers are read.
    """
    sample: TarSample | None = None
    damage = None
    try:
        with tarfile.open(fileobj=file, mode="r:*" if contents else "r:") as tar:
            for member in tar:
                vars(tar)["members"].clear()  # it would grow with the file
                name = member.name
                if member.isdir() or PurePosixPath(name).name.startswith("."):
                    continue
                folder, slash, last = name.rpartition("/")
                key = folder + slash + last.partition(".")[0]
                if sample is None or key != sample.key:
                    if sample is not None:
                        yield sample
                    sample = TarSample(member.offset, key, texts={"key": _readable(key)})
                suffix = last.rpartition(".")[2].lower()
                if is_photo_name(last):
                    sample.pictures.append((_readable(name), _picture(tar, member, shard) if contents else b""))
                elif suffix in TAR_COLUMNS.names[1:] and contents and member.isfile() and member.size <= _MAX_TEXT:
                    sample.texts[suffix] = _content(tar, member).decode(errors="replace")
    except (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError) as error:
        damage = " ".join(str(error).split()) or type(error).__name__
    if sample is not None:
        yield sample
    if damage is not None:
        yield TarSample(-1, damage=damage)


def _picture(tar: tarfile.TarFile, member: tarfile.TarInfo, shard: str) -> bytes | ImageError:
    name = f"{shard}/{_readable(member.name)}"
    if not member.isfile():
        what = f"a link to {_readable(member.linkname)}" if member.linkname else "not a regular file"
        return ImageError(f"{name}: is {what}; write the shard with tar --dereference --hard-dereference")
    try:
        check_size(member.size, name)
    except ImageError as error:
        return error
    return _content(tar, member)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    content = file.read() if file else b""
    if len(content) < member.size:
        raise tarfile.ReadError("unexpected end of data")
    return content


def _readable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
