"""`python -m emotion_ai_export.bench.server_flags MODELS`: TensorFlow Serving with our flags against its default flags.

Two servers, the binary of TFS_BIN or of PATH, serve the same models on this machine. They take turns in short rounds,
one idle while the other is measured, so that a slow phase of the machine affects both.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from emotion_ai.errors import ConfigError, EmotionAIError
from emotion_ai.terminal import Console, print_error
from emotion_ai_export.bench.compare import Figure, compare, write_table
from emotion_ai_export.bench.load import Round, figures_of, measure
from emotion_ai_export.bench.request_encodings import request_encodings
from emotion_ai_export.serving.engines import ServerOptions, choose_engine, command_line, served_models
from emotion_ai_export.serving.flags import available_cpus, runtime_flags
from emotion_ai_export.serving.launch import ServerProcess, free_port, versions_to_serve


@contextmanager
def server(base: Path, ours: bool) -> Iterator[tuple[str, str]]:
    """A running TensorFlow Serving: its REST address, and HOST:PORT of gRPC."""
    options = ServerOptions(free_port(), free_port(), choose_engine("tensorflow-serving"))
    with tempfile.TemporaryDirectory() as scratch:
        command = command_line(base, options, Path(scratch))
        if not ours:
            command = [part for part in command if part not in runtime_flags(available_cpus())]
        log = Path(scratch) / "server.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(command, stdout=stream, stderr=stream)
        started = ServerProcess(f"http://127.0.0.1:{options.rest_port}", process, log)
        try:
            started.wait_available({model: versions_to_serve(base, model) for model in served_models(base)}, 120)
            yield started.url, f"127.0.0.1:{options.grpc_port}"
        finally:
            started.end()


def compare_flags(
    base: Path, encoding: str, clients: int, rounds: int, seconds: float
) -> tuple[list[Figure], list[Figure], list[int]]:
    """Figures with our and with the default flags, and the failed requests of both.

    Raises:
        ConfigError: no such encoding, or no TensorFlow Serving.
        ExportError: the models do not become available.
    """
    with ExitStack() as stack:
        addresses = [stack.enter_context(server(base, ours)) for ours in (True, False)]
        known = [{each.name: each for each in request_encodings(*address)} for address in addresses]
        if encoding not in known[0]:
            raise ConfigError(f"encoding {encoding!r}: choose one of {'; '.join(known[0])}")
        found: list[list[Round]] = [[] for _ in known]
        for _ in range(rounds):
            for turn, encodings in enumerate(known):
                found[turn].append(measure(encodings[encoding], clients, seconds))
        ours, default = (figures_of(known[turn][encoding], clients, found[turn]) for turn in (0, 1))
        return ours, default, [sum(one.failed for one in each) for each in found]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m emotion_ai_export.bench.server_flags", description=__doc__)
    parser.add_argument("models", type=Path, help="folder that `emotion-ai export` published to")
    parser.add_argument("--encoding", default="REST, base64 JPEG", help="as `make load` names it")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round and server")
    parser.add_argument("--at-least", type=float, help="exit with 1 if the ratio of faces/s is lower")
    options = parser.parse_args()
    try:
        if min(options.clients, options.rounds, options.seconds) <= 0:
            raise ConfigError("clients, rounds and seconds must be > 0")
        ours, default, failed = compare_flags(
            options.models.resolve(), options.encoding, options.clients, options.rounds, options.seconds
        )
        changes = compare(ours, default)
    except EmotionAIError as error:
        print_error(error)
        sys.exit(2)
    console = Console()
    write_table(changes, console, "Our flags against the default flags (ratio of medians, 95 %)")
    console.print(f"failed requests: {failed[0]} with our flags, {failed[1]} with the default flags", highlight=False)
    sys.exit(int(options.at_least is not None and changes[0].ratio < options.at_least))


if __name__ == "__main__":
    main()
