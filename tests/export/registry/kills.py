"""Kills a command that changes a published folder before each of its file operations, and checks what is left.

A child process is forked from this one, which must not run threads: the test calls it as a program,
`python -m tests.export.registry.kills FOLDER kill 1`, which prints the number of kills of each command; a larger step
passes some over. With `full` in the place of `kill` the disk is full instead, from each of a command's writes on.
"""

import errno
import hashlib
import itertools
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from emotion_ai.contract import SERVABLES
from emotion_ai.errors import ExportError
from emotion_ai.published import CHECKSUMS_FILE, list_versions, partial_versions, whole_versions
from emotion_ai_export.registry.model_config import read_config
from emotion_ai_export.registry.publish import (
    next_version,
    publisher,
    put_in_place,
    withdrawn_on_error,
    write_checksums,
    write_config,
)
from emotion_ai_export.registry.versions import promote, prune, rollback
from emotion_ai_export.serving.deployment import write_deployment

EVENTS = ("open", "os.", "shutil.", "tempfile.", "fcntl.")
Command = Callable[[Path], object]


def export(base: Path) -> int:
    """What `emotion-ai export` does once its models are converted."""
    with publisher(base) as staging:
        version = next_version(base)
        for model in SERVABLES:
            (staging / model / "assets.extra").mkdir(parents=True)
            (staging / model / "saved_model.pb").write_text(f"{model} {version}")
            write_checksums(staging / model)
        put_in_place(staging, base, version)
        with withdrawn_on_error(base, version):
            write_config(base, "host")
            write_deployment(base, "host")
    return version


COMMANDS: dict[str, Command] = {
    "export": export,
    "promote": lambda base: promote(base, 5),
    "rollback": rollback,
    "prune": lambda base: prune(base, 1),
}


def prepare(base: Path) -> None:
    """Versions 1 to 5: stable names 2 and named 1 before, canary names 3."""
    for _ in range(5):
        export(base)
    promote(base, 2)
    promote(base, 3, "canary")


def run_until(command: Command, base: Path, place: int, disk_full: bool = False) -> bool:
    """Runs a command in a process that kills itself before its `place`-th file operation.

    Args:
        command: to run.
        base: the published folder.
        place: from 1.
        disk_full: from that operation on, files cannot be opened for writing, and folders cannot be made; nothing is
            killed.

    Returns:
        Whether the command ended by itself: without a kill, or without an error.
    """
    child = os.fork()
    if child == 0:
        count = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            if disk_full:
                writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
                count += bool(writes or event == "os.mkdir")
                if count >= place and (writes or event == "os.mkdir"):
                    raise OSError(errno.ENOSPC, "No space left on device", str(arguments[0]))
            elif event.startswith(EVENTS):
                count += 1
                if count == place:
                    os.kill(os.getpid(), signal.SIGKILL)

        code = 1
        try:
            sys.addaudithook(hook)
            command(base)
            code = 0
        except (ExportError, OSError):
            code = 3
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) in ((0, 3) if disk_full else (0,)), status
    return status == 0


def check(base: Path) -> tuple[int, int]:
    """Asserts that each visible version is whole, and that each label names one.

    Returns:
        The versions that stable and canary name.
    """
    whole = whole_versions(base)
    for model in SERVABLES:
        for number in list_versions(base / model):
            folder = base / model / str(number)
            assert (folder / "saved_model.pb").read_text() == f"{model} {number}"
            for line in (folder / CHECKSUMS_FILE).read_text().splitlines():
                digest, _, name = line.partition("  ")
                assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    configs = read_config(base)
    assert [config.name for config in configs] == list(SERVABLES)
    labels = configs[0].labels
    assert labels.keys() == {"stable", "canary"}
    for config in configs:
        assert config.labels == labels
        assert {*config.versions, *config.labels.values()} <= set(whole), (config, whole)
    assert list_versions(base / "face") == whole, "face is there without another model"
    return labels["stable"], labels["canary"]


def check_next(base: Path, command: str, stable: int, follow: str) -> None:
    """Asserts that a command works on what another left, and that nothing is left behind afterwards."""
    visible = {number for model in SERVABLES for number in list_versions(base / model)}
    copy = base.with_name("copy")
    shutil.copytree(base, copy)
    previous = {"promote": {2: 1, 5: 2}, "rollback": {2: 1, 1: 1}}.get(command, {2: 1})[stable]
    try:
        found = COMMANDS[follow](copy)
    except ExportError as error:
        if (command, follow) != ("prune", "rollback") or "no longer exists" not in str(error):
            raise
        found, previous = None, stable
    now, _ = check(copy)
    unfinished = copy.rglob(".*.partial") if follow == "export" else copy.glob(".*.partial")
    assert not [*copy.glob(".staging-*"), *unfinished], "something was left"
    assert not partial_versions(copy), "a part of a version was left"
    assert now == {"export": stable, "promote": 5, "rollback": previous, "prune": stable}[follow]
    if follow == "export":
        assert isinstance(found, int)
        assert found > max(visible), "a number is used twice"
    if follow == "prune":
        assert set(whole_versions(copy)) == {*check(copy), max(whole_versions(copy))}
    shutil.rmtree(copy)


def kill_everywhere(command: str, folder: Path, step: int) -> int:
    """Kills a command before each of its file operations, or before every `step`-th, each time on a new folder.

    Returns:
        The number of kills.
    """
    template, base = folder / "template", folder / "models"
    prepare(template)
    for kills, place in enumerate(itertools.count(1, step)):
        shutil.copytree(template, base)
        ended = run_until(COMMANDS[command], base, place)
        try:
            stable, canary = check(base)
            assert stable in {"promote": (2, 5), "rollback": (2, 1)}.get(command, (2,))
            assert canary == 3
            for follow in COMMANDS if step == 1 else [[*COMMANDS][kills % len(COMMANDS)]]:
                check_next(base, command, stable, follow)
        except Exception as error:
            raise AssertionError(f"{command}, killed before its file operation {place}: {error!r}") from error
        shutil.rmtree(base)
        if ended:
            return kills
    raise AssertionError


def fill_everywhere(command: str, folder: Path, step: int) -> int:
    """Runs a command on a disk that is full from each of its writes on. Returns the number of runs.

    Such a command changes nothing and leaves nothing behind.
    """
    template, base = folder / "template", folder / "models"
    prepare(template)
    before = _visible(template)
    for runs, place in enumerate(itertools.count(1, step if command == "export" else 1)):
        shutil.copytree(template, base)
        ended = run_until(COMMANDS[command], base, place, disk_full=True)
        check(base)
        if ended:
            return runs
        assert _visible(base) == before, f"{command}, with a full disk from write {place} on"
        assert not [*base.glob(".staging-*"), *base.glob(".*.partial")], f"{command} left something, write {place}"
        shutil.rmtree(base)
    raise AssertionError


def _visible(base: Path) -> dict[str, bytes]:
    files = [path for model in (*SERVABLES, "models.config") for path in (base / model, *(base / model).rglob("*"))]
    return {str(path.relative_to(base)): path.read_bytes() for path in files if path.is_file()}


if __name__ == "__main__":
    os.fsync = lambda fd: None  # a killed process loses nothing that it has written
    for name in COMMANDS:
        own = Path(sys.argv[1]) / name
        own.mkdir()
        run = {"kill": kill_everywhere, "full": fill_everywhere}[sys.argv[2]]
        print(name, run(name, own, int(sys.argv[3])), flush=True)
