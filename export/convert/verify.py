"""`emotion-ai verify`: is what is published, and what is served, still what the checkpoints beside it say?"""

import hashlib
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from emotion_ai.client import FaceClient
from emotion_ai.contract import SERVABLES, Task
from emotion_ai.errors import ClientError, ConfigError, EmotionAIError, ParityError
from emotion_ai.files import write_json
from emotion_ai.models import FaceNetwork, load_network
from emotion_ai_export.convert.frameworks import tf
from emotion_ai_export.convert.parity import (
    Ask,
    Case,
    ParityReport,
    Row,
    ask_saved_models,
    check_asked,
    parity_faces,
    same_files,
    same_pixels,
)
from emotion_ai_export.registry.model_config import ModelConfig, render
from emotion_ai_export.registry.publish import CHECKSUMS_FILE, CONFIG_FILE, PARTS, versions_of
from emotion_ai_export.registry.warmup import replay_warmup
from emotion_ai_export.serving.launch import running, server_engine


@dataclass
class Check:
    """One thing that was looked at in one version.

    Attributes:
        version: its number.
        name: "files", "checkpoint", "SavedModel", "warm-up", "REST" or "gRPC".
        problem: what is wrong; empty where nothing is.
        rows: the comparisons behind it, if any.
    """

    version: int
    name: str
    problem: str = ""
    rows: list[Row] = field(default_factory=list)

    @property
    def passes(self) -> bool:
        return not self.problem

    def as_dict(self) -> dict[str, Any]:
        worst = asdict(ParityReport(self.rows).worst) if self.rows else None
        said = {"version": self.version, "check": self.name, "passes": self.passes, "problem": self.problem}
        return {**said, "worst": worst, "comparisons": len(self.rows)}


def verify(base: Path, server: str | None = None, grpc: str | None = None, version: int | None = None) -> list[Check]:
    """Checks published versions: files, checkpoint, SavedModel, warm-up, and the answers over REST and gRPC.

    Args:
        base: where the models lie.
        server: the REST address of what serves them; without it, a server is started for the while.
        grpc: its gRPC address; without it the port below the REST one is tried.
        version: one of them; all without it.

    Raises:
        ConfigError: nothing is published there, or not that version.
        ClientError: the server does not answer, or serves none of the versions.
    """
    numbers = sorted({number for model in SERVABLES for number in versions_of(base / model)})
    if not numbers or (version is not None and version not in numbers):
        wanted = "any version" if version is None else f"version {version}"
        raise ConfigError(f"{base}: {wanted} is not there; publish with: emotion-ai export out={base}")
    numbers = numbers if version is None else [version]
    if server:
        _served(server, numbers)  # before the long work
    checks: list[Check] = []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with ExitStack() as stack, Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        step = progress.add_task("")

        def check(number: int, name: str, look: Callable[[], list[Row] | None]) -> bool:
            progress.update(step, description=f"version {number}: {name}")
            found = Check(number, name)
            try:
                found.rows = look() or []
                if found.rows:
                    ParityReport(found.rows).require()
            except Exception as error:  # whatever a damaged file makes the libraries raise
                found.problem = _line(error)
            checks.append(found)
            return found.passes

        proven = {}
        for number in numbers:
            published = _Published(number, base)
            whole = check(number, "files", published.check_files)
            good = check(number, "checkpoint", published.load_checkpoint)
            good = good and check(number, "SavedModel", published.compare)
            if good and check(number, "warm-up", published.replay) and whole:
                proven[number] = published  # what is damaged is not served
        if server is None and proven:
            progress.update(step, description="starting a server")
            server, grpc = stack.enter_context(_own_server(base, list(proven), stack))
        for name, address in (("REST", server), ("gRPC", grpc or (_beside(server) if server else None))):
            for number in _served(address, list(proven)) if address else ():
                ask = _asking(str(address), number, stack)
                check(number, name, partial(check_asked, name, SERVABLES, ask, proven[number].cases))
    return sorted(checks, key=lambda found: found.version)


def verify_command(
    base: Path, server: str | None, grpc: str | None, version: int | None, out: Path | None, as_json: bool
) -> int:
    """`emotion-ai verify`; returns the exit code: 0, or 1 where something is not as it was proven."""
    checks = verify(base, server, grpc, version)
    passes = all(check.passes for check in checks)
    record = {"passes": passes, "base": str(base), "server": server, "checks": [check.as_dict() for check in checks]}
    if out:
        write_json(out, record)
    if as_json:
        Console().print_json(data=record)
    else:
        Console().print(_table(checks))
        if not any(check.name == "gRPC" for check in checks):
            Console().print("gRPC was not asked: nothing answers there; give --grpc grpc://HOST:PORT", highlight=False)
    return int(not passes)


class _Published:
    """One version of the three servables on disk; each method is one thing to look at.

    Raises:
        ParityError: what is not as it was proven.
    """

    def __init__(self, number: int, base: Path) -> None:
        self.folders = {model: base / model / str(number) for model in SERVABLES}
        self.cases: list[Case] = []
        self._models: dict[str, Any] = {}

    def check_files(self) -> None:
        """Every file is as SHA256SUMS says, none is missing, none was added."""
        for folder in self.folders.values():
            sums = folder / CHECKSUMS_FILE
            if not sums.is_file():
                raise ParityError(f"{sums}: is missing; export again")
            lines = (line.partition("  ") for line in sums.read_text().splitlines())
            listed = {name: digest for digest, _, name in lines}
            present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
            for name in sorted(listed.keys() | present - {CHECKSUMS_FILE}):
                if name not in present:
                    raise ParityError(f"{folder / name}: is missing; export again")
                if name not in listed:
                    raise ParityError(f"{folder / name}: was added after the export; remove it")
                if hashlib.sha256((folder / name).read_bytes()).hexdigest() != listed[name]:
                    raise ParityError(f"{folder / name}: was altered after the export; export again")

    def load_checkpoint(self) -> None:
        """Every servable carries its networks, the same ones; they say what the others must answer."""
        found: dict[Task, FaceNetwork] = {}
        for model, folder in self.folders.items():
            for task in PARTS[model]:
                file = folder / "assets.extra" / f"{task}.safetensors"
                network = load_network(file, task)[0]
                first = found.setdefault(task, network).state_dict()
                if not all(torch.equal(first[name], tensor) for name, tensor in network.state_dict().items()):
                    raise ParityError(f"{file}: holds other weights than this version's other models; export again")
        self.cases = same_pixels(found, parity_faces()) + same_files(found)

    def compare(self) -> list[Row]:
        """The SavedModels against the checkpoint."""
        self._models = {model: tf.saved_model.load(str(folder)) for model, folder in self.folders.items()}
        return check_asked("SavedModel", SERVABLES, ask_saved_models(self._models), self.cases)

    def replay(self) -> None:
        """The warm-up requests are answered."""
        for model, folder in self.folders.items():
            replay_warmup(folder, self._models[model])


def _own_server(base: Path, numbers: list[int], stack: ExitStack) -> Any:
    """A server of the given versions, which models.config may not list."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emotion-ai-verify-")))
    for model in SERVABLES:
        (folder / model).symlink_to((base / model).resolve())
    configs = [ModelConfig(model, str(folder / model), tuple(numbers)) for model in SERVABLES]
    (folder / CONFIG_FILE).write_text(render(configs))
    return running(folder, engine=server_engine())


def _asking(address: str, number: int, stack: ExitStack) -> Ask:
    clients = {m: stack.enter_context(FaceClient(address, model=m, version=number)) for m in SERVABLES}
    return lambda servable, signature, values: clients[servable].predict(values, signature)  # type: ignore[index]


def _served(address: str, numbers: list[int]) -> list[int]:
    """Those of the versions that a server has AVAILABLE in all models.

    Raises:
        ClientError: it serves none of them.
    """
    served = set(numbers)
    for model in SERVABLES:
        with FaceClient(address, model=model) as client:
            served &= {number for number, state in client.versions().items() if state == "AVAILABLE"}
    if numbers and not served:
        said = ", ".join(map(str, numbers))
        raise ClientError(f"{address}: serves none of the versions {said}; is it the server of this folder?")
    return sorted(served)


def _beside(rest: str) -> str | None:
    """The gRPC address one port below the REST one, as 8500 is below 8501, where something answers there."""
    parts = urlsplit(rest)
    address = f"grpc://{parts.hostname}:{(parts.port or 1) - 1}"
    with FaceClient(address, retries=0, timeout=(3.0, 3.0)) as client:
        return address if parts.port and client.ready() else None


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return " ".join(lines) if isinstance(error, EmotionAIError) else f"{type(error).__name__}: {lines[0][:300]}"


def _table(checks: list[Check]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("version", "check", "result"):
        table.add_column(name, justify="right" if name == "version" else "left", overflow="fold")
    for check in checks:
        if check.problem:
            said = Text(check.problem, style="bold red")
        else:
            worst = ParityReport(check.rows).worst if check.rows else None
            share = f", worst {worst.difference:.1e} of {worst.tolerance:.0e} allowed" if worst else ""
            said = Text.assemble(("as proven", "green"), share)
        table.add_row(str(check.version), check.name, said)
    return table
