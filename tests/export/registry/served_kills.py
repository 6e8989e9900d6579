"""Kills commands at random times beside a running server, and checks what each leaves.

`python -m tests.export.registry.served_kills FOLDER ADDRESS POLL KILLS`: forks a child for each command, so this
process must not run threads while it does.
"""

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import requests

from emotion_ai.contract import SERVABLES
from emotion_ai.published import list_versions, whole_versions
from emotion_ai_export.registry.model_config import read_config
from emotion_ai_export.registry.publish import next_version, publisher, put_in_place, write_config
from emotion_ai_export.registry.rollout import load_published
from emotion_ai_export.registry.server_record import left_out
from emotion_ai_export.registry.versions import promote, prune, rollback
from emotion_ai_export.registry.watched_server import WatchedServer


def export(base: Path, server: WatchedServer) -> int:
    """Publishes a copy of the newest version and waits for the server, as `emotion-ai export` does."""
    with publisher(base) as staging:
        newest, number = whole_versions(base)[-1], next_version(base)
        for model in SERVABLES:
            shutil.copytree(base / model / str(newest), staging / model)
        put_in_place(staging, base, number)
        write_config(base, "host", keep_listed=True)
        load_published(base, number, server)
    return number


def kill_at_random(command: Callable[[], object], most: float) -> bool:
    """Runs a command in a process that is killed after at most that many seconds; returns whether it was."""
    child = os.fork()
    if child == 0:
        try:
            command()
        except BaseException as error:  # an error in the child is one of this program
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    time.sleep(random.uniform(0, most))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return os.WIFSIGNALED(status)


def main(base: Path, server: WatchedServer, kills: int) -> None:
    """Kills each command that many times, and lets it and its fellows run afterwards."""
    random.seed(0)

    def stable() -> int:
        return read_config(base)[0].labels["stable"]

    def answer(model: str) -> str:
        found = requests.get(f"{server.address}/v1/models/{model}/labels/stable/metadata", timeout=5)
        return str(found.json()["model_spec"]["version"])

    def settled() -> None:
        """The server has the labels of models.config, and nothing is left over."""
        assert {answer(model) for model in SERVABLES} == {str(stable())}, (stable(), [answer(m) for m in SERVABLES])
        assert not left_out(base), left_out(base)
        assert not [*base.glob(".staging-*")]
        for config in read_config(base):
            assert {*config.versions, *config.labels.values()} <= set(list_versions(base / config.name))

    for name in ("promote", "rollback", "prune", "export"):
        done = 0
        while done < kills:
            before = stable()
            target = next(n for n in whole_versions(base) if n != before)
            most = 5 * server.poll
            if name == "promote":
                done += kill_at_random(partial(promote, base, target, server=server), most)
                moved = stable() != before
                expected = before if moved else None
                found = rollback(base, server=server)
                assert not moved or found == expected, (before, target, found)
            elif name == "rollback":
                promote(base, target, server=server)
                done += kill_at_random(partial(rollback, base, server=server), most)
                assert stable() in (before, target)
                assert rollback(base, server=server) == before, (before, target)
            elif name == "prune":
                export(base, server)
                done += kill_at_random(partial(prune, base, 2, server), most)
                prune(base, 2, server)
            else:
                done += kill_at_random(partial(export, base, server), most)
                promote(base, target, server=server)
                prune(base, 3, server)
            settled()
        print(name, done, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), WatchedServer(sys.argv[2], timeout=30, poll=float(sys.argv[3])), int(sys.argv[4]))
