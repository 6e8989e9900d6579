"""Memory of a running page under load: python tests/web/load.py http://127.0.0.1:7860 PID --users 50 --seconds 60.

Each user uploads and reads pictures in a window, from an own address of 127.0.0.0/8 with an own rate limit.
"""

import argparse
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from emotion_ai.vision.photo import PORTRAITS
from tests.web.visitor import Visitor


@dataclass
class Load:
    """Users that read pictures until they are stopped.

    Attributes:
        url: of the page.
        users: how many at the same time.
        pause: seconds between two pictures of one.
        pictures: read so far.
        errors: of requests, such as those that a full queue rejects.
    """

    url: str
    users: int = 50
    pause: float = 1.0
    pictures: int = 0
    errors: list[str] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def run(self, seconds: float, pid: int, every: float = 3.0) -> list[tuple[float, int]]:
        """Puts the page under load; returns its memory over time, in seconds and megabytes."""
        threads = [threading.Thread(target=self._use, args=[number]) for number in range(self.users)]
        started, found = time.monotonic(), [(0.0, resident(pid))]
        for thread in threads:
            thread.start()
        while (passed := time.monotonic() - started) < seconds:
            time.sleep(min(every, seconds - passed))
            found.append((time.monotonic() - started, resident(pid)))
        self._stopped.set()
        for thread in threads:
            thread.join()
        return found

    def _use(self, number: int) -> None:
        visitor, content = Visitor(self.url, f"127.0.1.{number + 1}"), PORTRAITS[number % 2].read_bytes()
        reader = visitor.reader()
        while not self._stopped.is_set():
            try:
                visitor.read(visitor.uploaded(content), reader)
                self.pictures += 1
            except (AssertionError, OSError, ValueError) as error:
                self.errors.append(str(error)[:200])
                time.sleep(0.5)
            self._stopped.wait(self.pause)


def resident(pid: int) -> int:
    """Megabytes of a process that are in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("pid", type=int)
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    load = Load(arguments.url, arguments.users)
    for passed, megabytes in load.run(arguments.seconds, arguments.pid):
        print(f"{passed:5.0f} s {megabytes:6d} MB")
    print(f"{load.pictures} pictures read by {load.users} users, {len(load.errors)} errors", *sorted(set(load.errors)))


if __name__ == "__main__":
    main()
