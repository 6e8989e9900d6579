"""Flags of TensorFlow Serving that depend on the CPUs alone, with the measurements that they follow."""

import os
from contextlib import suppress
from pathlib import Path

from emotion_ai.errors import ConfigError

CPUS = 2
"""CPUs of the server's container; the flags were measured with two."""

_GRPC_THREADS_PER_CPU = 32
_CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def runtime_flags(cpus: int, grpc_max_threads: int | None = None) -> list[str]:
    """Threads for `cpus` CPUs, and one attempt to load a version.

    Measured with TensorFlow Serving 2.20 on two cores, the bundled networks and one face per request:

    - `--max_num_load_retries=0`: by default, a version that does not load is tried five more times, a minute apart, and
      every other change of `models.config` waits. Without retries it ended with its error after 1 s.
    - `--grpc_max_threads`: gRPC rejects calls beyond this number at once. With the default, four per core, 16 clients
      lost 740 of 960 requests and 32 clients 1,741 of 1,920; with 64, 32 clients lost none of 1,920.
    - `--tensorflow_intra_op_parallelism=1`: one thread per operation. 16 REST clients got 179 instead of 135 faces/s,
      4 clients 180 instead of 131. A single request took 4.0 ms with one thread, 4.8 to 5.3 ms with two.
    - `--tensorflow_inter_op_parallelism`: operations of all requests that run at once, one per CPU. The default is one
      per core of the host, whatever the container's limit; on the two cores of the measurements both are the same.
    - `--enable_batching` is not among them. 16 REST clients got 194 faces/s without it and 138 with it.

    Without a server, `python -m emotion_ai_export.bench.threads` measures thread flags and batching in a TF1 session.
    In two runs on two busy cores, relative to the default, ours gave 1.37 and 1.00 times the faces/s with 4 callers,
    1.19 and 0.96 with 16. Batching gave 0.68 and 0.54, 0.47 and 0.36: filling batches up to an allowed size took 1.6 to
    1.9 times the processor time per face.

    Args:
        cpus: that the server may use.
        grpc_max_threads: instead of the number that follows from `cpus`.

    Raises:
        ConfigError: `cpus` or `grpc_max_threads` is not an integer from 1 on.
    """
    for name, value in (("cpus", cpus), ("grpc_max_threads", 1 if grpc_max_threads is None else grpc_max_threads)):
        if type(value) is not int or value < 1:
            raise ConfigError(f"{name} must be an integer >= 1, got {value}")
    return [
        "--max_num_load_retries=0",
        f"--grpc_max_threads={grpc_max_threads or max(2, cpus) * _GRPC_THREADS_PER_CPU}",
        "--tensorflow_intra_op_parallelism=1",
        f"--tensorflow_inter_op_parallelism={cpus}",
    ]


def available_cpus() -> int:
    """CPUs that this process may use: of its affinity and, in a container, of its limit."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no cgroup v2, or "max" for no limit
        quota, period = map(int, _CGROUP_LIMIT.read_text().split())
        cpus = min(cpus, -(-quota // period))
    return max(1, cpus)
