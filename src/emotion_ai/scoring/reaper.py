"""A process that waits for the end of the one that started it, then ends what that one has left: Ray's processes.

Run as a script, with the folder of Ray's files as argument; its stdin is a pipe that the end of its parent closes, also
an end by SIGKILL. Ray's agents otherwise outlive a killed driver for a minute or two, and its files for ever.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PATIENCE = 20  # looks, a tenth of a second apart


def users(folder: Path) -> Iterator[int]:
    """The processes, but for this one and its parent, that have a file of the folder open; none without /proc."""
    start = f"{folder}/"
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) in (os.getpid(), os.getppid()):
            continue
        with suppress(OSError):
            if any(os.readlink(process / "fd" / name).startswith(start) for name in os.listdir(process / "fd")):
                yield int(process.name)


def reap(folder: Path) -> None:
    """Ends the processes that use the folder, and removes it."""
    for _ in range(_PATIENCE):
        found = list(users(folder))
        if not found:
            break
        for process in found:
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    reap(Path(sys.argv[1]))
