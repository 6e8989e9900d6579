"""Where pictures lie: this machine's file system, or any that pyarrow opens by an address such as s3://."""

import fnmatch
import functools
import glob
import io
import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import unquote

from natsort import natsorted, ns

from emotion_ai.client.address import without_login
from emotion_ai.errors import ConfigError, ImageError
from emotion_ai.extras import optional_imports
from emotion_ai.files import open_regular
from emotion_ai.inference.photo_files import walk_folder
from emotion_ai.vision.photo import check_size, read_picture

with optional_imports("score"):
    from pyarrow import fs

_GLOB = "*?["


@dataclass(frozen=True)
class Entry:
    """A file.

    Attributes:
        path: absolute, in its store.
        name: as a user would write it: what was given and the path below it.
        size: in bytes.
        changed: time of its last change, in nanoseconds.
    """

    path: str
    name: str
    size: int
    changed: int


@dataclass(frozen=True)
class Store:
    """A file system.

    Attributes:
        uri: any address in it, with its options; empty for that of this machine.
    """

    uri: str = ""

    @classmethod
    def of(cls, spec: str) -> tuple["Store", str]:
        """The store of a path or address, and the absolute path in it.

        Raises:
            ConfigError: the address is not one that pyarrow opens.
        """
        if "://" not in spec:
            return cls(), os.path.abspath(spec)
        if spec.startswith("file://"):
            host, slash, path = spec.removeprefix("file://").partition("/")
            if host not in ("", "localhost"):
                raise ConfigError(
                    f"{without_login(spec)}: names a file of another machine; give its path here, as in file:///{path}"
                )
            return cls(), unquote(slash + path)
        store = cls(spec)
        return store, store._opened()[1]

    def _opened(self) -> tuple[Any, str]:
        return _from_uri(self.uri)

    @property
    def system(self) -> Any:
        """The file system of pyarrow; None for that of this machine."""
        return self._opened()[0] if self.uri else None

    def open(self, path: str) -> BinaryIO:
        """Opens a file for reading, anywhere in it.

        Raises:
            OSError: it cannot be opened.
        """
        if not self.uri:
            return open_regular(Path(path))
        return io.BufferedReader(self.system.open_input_file(path), 2**20)

    def read(self, path: str, name: str) -> bytes:
        """The content of a picture file.

        Raises:
            ImageError: it is missing, too large, or cannot be read.
        """
        if not self.uri:
            return read_picture(Path(path))
        try:
            info = self.system.get_file_info(path)
            if info.type != fs.FileType.File:
                raise ImageError(f"{name}: no such file; check the path")
            check_size(info.size, name)
            with self.system.open_input_stream(path) as stream:
                return cast(bytes, stream.read())
        except OSError as error:
            raise ImageError(f"{name}: cannot be read ({error}); check the address and the access") from error

    def join(self, folder: str, path: str) -> tuple["Store", str]:
        """The store and path of what a table in `folder` calls `path`: relative to the folder, absolute, or an address.

        Raises:
            ConfigError: it is an address that pyarrow does not open.
        """
        if "://" in path:
            return Store.of(path)
        return self, (os.path if not self.uri else posixpath).join(folder, path)

    def files(self, path: str, name: str) -> Iterator[Entry]:
        """The files that a path names, in natural order: itself, those in a folder at any depth, or of a glob pattern.

        Raises:
            ConfigError: there is nothing, or it cannot be listed.
        """
        found = list(self._remote_files(path, name) if self.uri else _local_files(path, name))
        if not found:
            raise ConfigError(f"{name}: no such file or folder, or an empty one; check the path")
        yield from natsorted(sorted(found, key=lambda entry: entry.name), key=lambda entry: entry.name, alg=ns.PATH)

    def _remote_files(self, path: str, name: str) -> Iterator[Entry]:
        head, pattern = path, ""
        if any(sign in path for sign in _GLOB):
            whole = path[: min(path.index(sign) for sign in _GLOB if sign in path)]
            head, pattern = whole.rpartition("/")[0], path
        shown = name.partition("?")[0].removesuffix("/") if not pattern else name.partition("://")[0] + "://"
        try:
            info = self.system.get_file_info(head)
            infos = [info]
            if info.type == fs.FileType.Directory:
                infos = self.system.get_file_info(fs.FileSelector(head, recursive=True))
        except OSError as error:
            raise ConfigError(f"{name}: cannot be listed ({error}); check the address and the access") from error
        for info in infos:
            if info.type != fs.FileType.File or any(part.startswith(".") for part in info.path.split("/")):
                continue
            if pattern and not fnmatch.fnmatchcase(info.path, pattern):
                continue
            below = info.path[len(head) :] if not pattern else info.path
            yield Entry(info.path, shown + below, info.size, info.mtime_ns or 0)


def _local_files(path: str, name: str) -> Iterator[Entry]:
    if os.path.isdir(path):
        yield from _folder_files(path, name)
    elif os.path.lexists(path):
        yield from _local_entry(path, name)
    elif any(sign in path for sign in _GLOB):
        top = os.path.dirname(path)
        while not os.path.isdir(top):  # signs in the name of a folder that exists are letters
            top = os.path.dirname(top)
        searched = set[str]()
        for found in glob.iglob(glob.escape(top) + path.removeprefix(top), recursive=True):
            if searched and not searched.isdisjoint(map(str, Path(found).parents)):
                continue
            found = found.rstrip(os.sep)
            shown = os.path.relpath(found) if not os.path.isabs(name) else found
            if os.path.isdir(found):
                searched.add(found)
                yield from _folder_files(found, shown)
            else:
                yield from _local_entry(found, shown)


def _folder_files(path: str, name: str) -> Iterator[Entry]:
    def report(error: OSError) -> None:
        raise ConfigError(f"{error.filename}: cannot be listed ({error.strerror}); check the permissions")

    for parent, names in walk_folder(Path(path), report):
        below = os.path.join(name, os.path.relpath(parent, path)) if str(parent) != path else name
        for file in names:
            if not file.startswith("."):
                yield from _local_entry(os.path.join(parent, file), os.path.join(below, file))


def _local_entry(path: str, name: str) -> Iterator[Entry]:
    """The file; none for a folder. One that is no file, such as a link to nowhere, counts as empty."""
    try:
        status = os.stat(path)
    except OSError:
        yield Entry(path, name, 0, 0)
        return
    if not os.path.isdir(path):
        yield Entry(path, name, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _from_uri(uri: str) -> tuple[Any, str]:
    try:
        system, path = fs.FileSystem.from_uri(uri)
    except (OSError, ValueError) as error:
        shown, reason = without_login(uri), str(error).replace(uri, without_login(uri))
        raise ConfigError(f"{shown}: pyarrow cannot open this address ({reason}); use s3://, gs:// ...") from None
    return system, path
