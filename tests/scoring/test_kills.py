"""Runs that end at random moments: every picture has its rows once, and nothing is left running."""

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyarrow import parquet

from emotion_ai.scoring.reaper import reap, users
from tests.scoring.fakes import write_pictures

ROOT = Path(__file__).parents[2]
COUNT = 700

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder with a name short enough for Ray's sockets, by which its processes are found."""
    with tempfile.TemporaryDirectory(prefix="s", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)
        for process in users(Path(folder)):
            os.kill(process, signal.SIGKILL)


def start(folder: Path, *address: str, dest: str = "scores") -> subprocess.Popen[str]:
    script = [sys.executable, str(ROOT / "tests/scoring/quick_run.py"), str(folder / "photos"), str(folder / dest)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*script, "0.01", *address], env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait(condition: Callable[[], object], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def parts(folder: Path) -> int:
    return len(list((folder / "scores").glob("part-*")))


def is_clean(folder: Path) -> bool:
    return not list(users(folder)) and not list(folder.glob("emotion-ai-*"))


def workers(folder: Path) -> list[int]:
    found = []
    for process in users(folder):
        name = Path(f"/proc/{process}/cmdline")
        if name.exists() and b"MapWorker" in name.read_bytes():
            found.append(process)
    return found


def listened(folder: Path) -> set[str]:
    """Addresses that the processes of a run listen on, as the kernel writes them."""
    files = [path for process in users(folder) for path in Path(f"/proc/{process}/fd").iterdir()]
    links = [os.readlink(path) for path in files if path.is_symlink()]
    lines = [line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()]
    return {cells[1].partition(":")[0] for cells in lines if cells[3] == "0A" and f"socket:[{cells[9]}]" in links}


def names(dest: Path) -> list[str]:
    return [Path(name).name for name in parquet.read_table(dest, columns=["source"])["source"].to_pylist()]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kills_neither_repeat_nor_lose_a_row_and_leave_nothing_behind(short: Path) -> None:
    write_pictures(short / "photos", COUNT)
    rng = random.Random(0)

    process = start(short)
    wait(lambda: parts(short) >= 2)
    assert {address[-8:] for address in listened(short)} == {"0100007F"}
    time.sleep(rng.random())
    process.kill()
    process.communicate()
    wait(lambda: is_clean(short), 30)
    kept = parts(short)
    assert 2 <= kept < 44

    process = start(short)
    wait(lambda: parts(short) >= kept + 2)
    os.kill(rng.choice(workers(short)), signal.SIGKILL)
    wait(lambda: parts(short) >= kept + 6)
    os.killpg(process.pid, signal.SIGINT)
    _, printed = process.communicate(timeout=120)
    assert (process.returncode, printed) == (130, "interrupted; the same command scores the rest\n")
    wait(lambda: is_clean(short), 30)

    process = start(short)
    wait(lambda: parts(short) >= kept + 8)
    process.terminate()
    _, printed = process.communicate(timeout=120)
    assert (process.returncode, printed) == (143, "")
    wait(lambda: is_clean(short), 30)

    process = start(short)
    _, printed = process.communicate(timeout=300)
    assert process.returncode == 0
    assert f"wrote {short}/scores: {COUNT} pictures" in printed
    assert printed.count("\n") == 1
    assert names(short / "scores") == [f"{i}.png" for i in range(COUNT)]
    assert not list((short / "scores").glob(".*.partial"))


def test_the_reaper_ends_what_uses_a_folder_and_removes_it(short: Path) -> None:
    folder = short / "session"
    folder.mkdir()
    command = f"import sys, time; file = open({str(folder / 'log')!r}, 'w'); print(1, flush=True); time.sleep(60)"
    user = subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE)
    other = subprocess.Popen([sys.executable, "-c", command.replace("/session/", "/")], stdout=subprocess.PIPE)
    for process in (user, other):
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
    assert list(users(folder)) == [user.pid]
    reap(folder)
    assert user.wait(5) == -signal.SIGKILL
    assert other.poll() is None
    other.kill()
    other.wait()
    assert not folder.exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_workers_of_a_cluster_give_the_rows_of_one_machine(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(short / "photos", 200)
    local = start(short, dest="local")
    _, printed = local.communicate(timeout=300)
    assert local.returncode == 0, printed

    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=1", "--object-store-memory=80000000"]
    ray += ["--disable-usage-stats", "--block"]
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nodes = [
        [
            *ray,
            "--head",
            "--node-ip-address=127.0.0.2",
            f"--port={port}",
            "--include-dashboard=false",
            f"--temp-dir={short}/ray",
        ],
        [*ray, "--node-ip-address=127.0.0.3", f"--address=127.0.0.2:{port}"],
    ]
    running = list[subprocess.Popen[bytes]]()
    try:
        for command in nodes:
            with (short / f"node{len(running)}").open("wb") as log:
                running.append(
                    subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
                )
            wait(lambda: "runtime started" in (short / f"node{len(running) - 1}").read_text(errors="replace"))
        process = start(short, f"127.0.0.2:{port}", dest="scores")
        _, printed = process.communicate(timeout=300)
        assert process.returncode == 0, printed
    finally:
        for node in running:
            os.killpg(node.pid, signal.SIGTERM)
        for node in running:
            node.wait(60)
    first, second = (parquet.read_table(short / dest) for dest in ("local", "scores"))
    assert str(first.to_pylist()) == str(second.to_pylist())  # NaN differs from itself
    assert first.num_rows == 200
