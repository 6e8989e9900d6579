"""Ray for one run: quiet, on this machine alone or on a cluster, and gone afterwards whatever happens."""

import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emotion_ai.errors import ConfigError
from emotion_ai.extras import optional_imports

_SETTINGS = {  # read when Ray is imported, here and in the processes that it starts
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # prints no line of workers, nor of errors that are retried
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of Ray's own actors, such as its statistics
    "RAY_SCHEDULER_EVENTS": "0",
    "RAY_worker_niceness": "0",  # by default 15: next to other work, scoring would stand still
}
OBJECT_STORE_BYTES = 128 * 2**20
"""Shared memory of Ray on one machine; only lists of files and counts go through it."""

_LONGEST = 16
_STARTS = 2


@contextmanager
def running_ray(address: str | None, workers: int | None) -> Iterator[Any]:
    """Ray's module, connected to a cluster, or with one of this machine alone that ends with the block.

    A process that is connected already stays so, and its cluster is used.

    Args:
        address: of the cluster, HOST:PORT, or "auto" for the one that runs on this machine.
        workers: CPUs of a cluster of this machine; by default all.

    Raises:
        ConfigError: there is no cluster at the address.
    """
    for name, value in {**_SETTINGS, **_access(address)}.items():
        os.environ.setdefault(name, value)
    with optional_imports("score"):
        import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        if ray.is_initialized():
            yield _quiet(ray)
            return
        if address is None:
            with _session_folder() as folder:
                try:
                    _start(ray, workers, folder)
                    yield _quiet(ray)
                finally:
                    ray.shutdown()
            return
        try:
            with _discreetly():
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"--address {address}: no Ray cluster there ({_first_line(error)}); start one with ray start"
            ) from error
        try:
            yield _quiet(ray)
        finally:
            ray.shutdown()


def _access(address: str | None) -> dict[str, str]:
    """Who may connect to Ray, as settings: with a token of this run, on 127.0.0.1 alone; to a cluster with the user's.

    By itself, Ray would write a token to the home folder, with which clusters start that are not joined without it.
    """
    if address is None:
        alone = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # on Linux as well
        own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        return alone if "RAY_AUTH_MODE" in os.environ else {**alone, **own}
    given = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    return {"RAY_AUTH_MODE": "token"} if given or (Path.home() / ".ray" / "auth_token").exists() else {}


def _start(ray: Any, workers: int | None, folder: Path) -> None:
    """Starts Ray on this machine; again if a busy machine was too slow for Ray's own time limits.

    Raises:
        ConfigError: it does not start.
    """
    for attempt in range(_STARTS):
        try:
            with _discreetly():
                ray.init(
                    address="local",
                    num_cpus=workers,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    object_store_memory=OBJECT_STORE_BYTES,
                    _node_ip_address="127.0.0.1",
                    _temp_dir=str(folder),
                )
            return
        except Exception as error:  # Ray raises half a dozen kinds
            ray.shutdown()
            if attempt == _STARTS - 1:
                raise ConfigError(f"Ray does not start ({_first_line(error)}); try again, or give --address") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


@contextmanager
def _discreetly() -> Iterator[None]:
    """Drops what Ray's C++ parts print while they start, keeps the handlers of signals, and delays the first signal.

    These parts crash at the end of a process that left them half started.
    """
    main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)} if main else {}
    delayed: list[int] = []

    def delay(number: int, _: object) -> None:
        delayed.append(number)
        signal.signal(number, handlers[signal.Signals(number)])

    for number, handler in handlers.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, delay)
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    os.close(nothing)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for late in delayed:
            signal.raise_signal(late)


def _quiet(module: Any) -> Any:
    import ray.data  # an attribute of `module` from here on

    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return module


@contextmanager
def _session_folder() -> Iterator[Path]:
    """A folder for Ray's files and sockets, removed at the end, with all processes that use it, even after a kill."""
    base = tempfile.gettempdir()
    if len(base) > _LONGEST:  # the path of a socket has at most 107 bytes, of which Ray's names take some 70
        base = "/tmp"
    folder = Path(tempfile.mkdtemp(prefix="emotion-ai-", dir=base))
    script = Path(__file__).with_name("reaper.py")
    command = [sys.executable, "-I", "-S", str(script), str(folder)]
    reaper = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield folder
    finally:
        assert reaper.stdin is not None
        reaper.stdin.close()
        reaper.wait()
        shutil.rmtree(folder, ignore_errors=True)
