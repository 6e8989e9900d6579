"""`emotion-ai verify`: compares published and served models with the checkpoints beside them."""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.box import SIMPLE_HEAD
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from emotion_ai.client import FaceClient, ServerAddress
from emotion_ai.client.checks import Outputs
from emotion_ai.client.transport import Inputs
from emotion_ai.contract import SERVABLES, Servable
from emotion_ai.errors import ClientError, ConfigError, EmotionAIError
from emotion_ai.files import write_json
from emotion_ai.models.device import Placement, find_device
from emotion_ai.published import CONFIG_FILE, whole_versions
from emotion_ai.terminal import Console, Progress, print_json
from emotion_ai_export.convert.parity import Comparison, ParityReport, Predictor, compare
from emotion_ai_export.convert.published_version import PublishedVersion
from emotion_ai_export.registry.model_config import ModelConfig, render
from emotion_ai_export.registry.staging import damaged_versions
from emotion_ai_export.serving.engines import server_engine
from emotion_ai_export.serving.launch import Addresses, running


@dataclass
class Check:
    """One check of one version.

    Attributes:
        version: its number.
        name: "files", "checkpoint", "PyTorch on ..." for a GPU, "ONNX Runtime", "LiteRT", "weights", "SavedModel",
            "warm-up", "REST" or "gRPC".
        problem: why it failed; empty if it passed.
        comparisons: with PyTorch, if any.
    """

    version: int
    name: str
    problem: str = ""
    comparisons: list[Comparison] = field(default_factory=list)

    @property
    def passes(self) -> bool:
        return not self.problem

    def as_dict(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "check": self.name,
            "passes": self.passes,
            "problem": self.problem,
            "worst": asdict(ParityReport(self.comparisons).worst) if self.comparisons else None,
            "comparisons": len(self.comparisons),
        }


@dataclass(frozen=True)
class VerifyOptions:
    """What to verify.

    Attributes:
        server: REST address of a running server; without it, a server is started.
        grpc: its gRPC address; without it, the port below the REST one is tried.
        version: one version; all without it.
        device: on which the checkpoints are compared besides the CPU.
    """

    server: str | None = None
    grpc: str | None = None
    version: int | None = None
    device: str = "cpu"


def verify(base: Path, options: VerifyOptions | None = None) -> list[Check]:
    """Checks published versions: files, checkpoints, weights, SavedModels, warm-up, and predictions over REST and gRPC.

    Raises:
        ConfigError: no such version, none at all, or no such device.
        ClientError: the server does not respond, or serves none of the versions.
    """
    options = options or VerifyOptions()
    server, grpc, version = options.server, options.grpc, options.version
    placement = Placement.of(options.device)
    numbers = sorted({*whole_versions(base), *damaged_versions(base)})
    if not numbers or (version is not None and version not in numbers):
        missing = "published versions" if version is None else f"version {version}"
        raise ConfigError(f"{base}: no {missing} there; publish with: emotion-ai export out={base}")
    numbers = numbers if version is None else [version]
    if server:
        _served(server, numbers)  # before the long work
    checks: list[Check] = []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with ExitStack() as stack, Progress(*columns, console=Console(stderr=True)) as progress:
        step = progress.add_task("")

        def check(number: int, name: str, run: Callable[[], list[Comparison] | None]) -> bool:
            progress.update(step, description=f"version {number}: {name}")
            found = Check(number, name)
            try:
                found.comparisons = run() or []
                if found.comparisons:
                    ParityReport(found.comparisons).require()
            except Exception as error:  # damaged files make the libraries raise any kind
                found.problem = _line(error)
            checks.append(found)
            return found.passes

        intact = {}
        for number in numbers:
            published = PublishedVersion(number, base, placement)
            whole = check(number, "files", published.check_files)
            good = check(number, "checkpoint", published.load_checkpoint)
            if good and placement.device.type != "cpu":
                check(number, f"PyTorch on {placement.name}", published.compare_device)
            if good and published.has_onnx:
                check(number, "ONNX Runtime", published.compare_onnx)
            if good and published.litert_files:
                check(number, "LiteRT", published.compare_litert)
            alike = good and check(number, "weights", published.compare_weights)
            good = good and check(number, "SavedModel", published.compare_models) and alike
            if good and check(number, "warm-up", published.replay_warmups) and whole:
                intact[number] = published  # damaged versions are not served
        if server is None and intact:
            progress.update(step, description="starting a server")
            server, grpc = _start_server(base, list(intact), stack)
        for name, address in (("REST", server), ("gRPC", grpc or (_beside(server) if server else None))):
            for number in _served(address, list(intact)) if address else ():
                predict = _client_predictor(address or "", number, stack)
                published = intact[number]
                check(number, name, partial(compare, name, SERVABLES, predict, published.cases, published.signatures))
    return sorted(checks, key=lambda found: found.version)


def verify_command(base: Path, options: VerifyOptions, out: Path | None, as_json: bool) -> int:
    """`emotion-ai verify`. Returns the exit code: 0, or 1 if a check fails."""
    checks = verify(base, options)
    passes = all(check.passes for check in checks)
    record = {
        "passes": passes,
        "base": str(base),
        "server": options.server,
        "checkpoint_on": list(dict.fromkeys(("cpu", find_device(options.device).type))),
        "checks": [check.as_dict() for check in checks],
    }
    if out:
        write_json(out, record)
    if as_json:
        print_json(record)
    else:
        Console().print(_checks_table(checks))
        if not any(check.name == "gRPC" for check in checks):
            Console().print("gRPC was not checked: no server found; give --grpc grpc://HOST:PORT", highlight=False)
    return int(not passes)


def _start_server(base: Path, numbers: list[int], stack: ExitStack) -> Addresses:
    """Starts a server of the given versions, which models.config may not list."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emotion-ai-verify-")))
    for model in SERVABLES:
        (folder / model).symlink_to((base / model).resolve())
    configs = [ModelConfig(model, str(folder / model), tuple(numbers)) for model in SERVABLES]
    (folder / CONFIG_FILE).write_text(render(configs))
    return stack.enter_context(running(folder, engine=server_engine()))


def _client_predictor(address: str, number: int, stack: ExitStack) -> Predictor:
    clients = {m: stack.enter_context(FaceClient(address, model=m, version=number)) for m in SERVABLES}

    def predict(servable: Servable, signature: str, values: Inputs, /) -> Outputs:
        return clients[servable].predict(values, signature)

    return predict


def _served(address: str, numbers: list[int]) -> list[int]:
    """The given versions that are AVAILABLE on a server in all models.

    Raises:
        ClientError: none of them is.
    """
    served = set(numbers)
    for model in SERVABLES:
        with FaceClient(address, model=model) as client:
            served &= {number for number, state in client.versions().items() if state == "AVAILABLE"}
    if numbers and not served:
        listed = ", ".join(map(str, numbers))
        raise ClientError(f"{address}: serves none of the versions {listed}; check that it serves this folder")
    return sorted(served)


def _beside(rest: str) -> str | None:
    """The gRPC address one port below the REST one, as 8500 is below 8501; None if no server is ready there."""
    parts = urlsplit(rest)
    known = rest if isinstance(rest, ServerAddress) else ServerAddress(rest)
    address = known.at("grpcs" if parts.scheme == "https" else "grpc", max((parts.port or 2) - 1, 1))
    with FaceClient(address, retries=0, timeout=(3.0, 3.0)) as client:
        return address if parts.port and client.ready() else None


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return " ".join(lines) if isinstance(error, EmotionAIError) else f"{type(error).__name__}: {lines[0][:300]}"


def _checks_table(checks: list[Check]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("version", "check", "result"):
        table.add_column(name, justify="right" if name == "version" else "left", overflow="fold")
    for check in checks:
        if check.problem:
            result = Text(check.problem, style="bold red")
        else:
            worst = ParityReport(check.comparisons).worst if check.comparisons else None
            detail = f", largest difference {worst.difference:.1e} (tolerance {worst.tolerance:.0e})" if worst else ""
            result = Text.assemble(("passes", "green"), detail)
        table.add_row(str(check.version), check.name, result)
    return table
