"""Ray for one run: quiet, on this machine alone or on a cluster, and gone afterwards whatever happens."""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emotion_ai.errors import ConfigError
from emotion_ai.extras import optional_imports

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray is imported
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")

with optional_imports("score"):
    import ray

OBJECT_STORE_BYTES = 128 * 2**20
"""Shared memory of Ray on one machine; only lists of files and counts go through it."""


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
    logging.getLogger("ray").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        if ray.is_initialized():
            yield _quiet(ray)
            return
        if address is None:
            with _session_folder() as folder:
                try:
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
                    yield _quiet(ray)
                finally:
                    ray.shutdown()
            return
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ConfigError(
                f"--address {address}: no Ray cluster there ({first}); start one with ray start"
            ) from error
        try:
            yield _quiet(ray)
        finally:
            ray.shutdown()


def _quiet(module: Any) -> Any:
    import ray.data

    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return module


@contextmanager
def _session_folder() -> Iterator[Path]:
    """A folder for Ray's files and sockets, removed at the end, with all processes that use it, even after a kill."""
    folder = Path(tempfile.mkdtemp(prefix="emotion-ai-"))
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
