"""What `emotion-ai canary` does: asks both versions, prints a table or JSON, and writes the picture."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from emotion_ai.class_set import ClassSet
from emotion_ai.client import FaceClient
from emotion_ai.contract import CROP_SIZE, Servable
from emotion_ai.errors import ConfigError
from emotion_ai.evaluation.canary.answers import ask_both
from emotion_ai.evaluation.canary.compare import LEVEL, Check, Margins, Verdict, judge
from emotion_ai.evaluation.canary.faces import CanaryFaces, is_dataset, load_faces
from emotion_ai.extras import load as load_extra
from emotion_ai.files import atomic_path, write_json
from emotion_ai.inference.photo_files import find_photos
from emotion_ai.published import CONFIG_FILE
from emotion_ai.terminal import Console, Progress, print_json, printable
from emotion_ai.vision.decoding import PICTURE_SUFFIXES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class CanaryOptions:
    """The options of the command; `labels` are those of the stable version and of the canary."""

    base: Path
    server: str
    faces: tuple[Path, ...] = ()
    count: int = 300
    model: Servable = "face"
    labels: tuple[str, str] = ("stable", "canary")
    margins: tuple[str, ...] = ()
    seed: int = 0
    picture: Path | None = None
    out: Path | None = None
    json: bool = False


def canary_command(options: CanaryOptions) -> int:
    """`emotion-ai canary`. Returns the exit code: 0, or 1 if the canary is worse.

    Raises:
        EmotionAIError: invalid options or faces, labels that the folder or the server lacks, a server that is away.
    """
    margins = Margins.parse(list(options.margins))
    for path in options.faces:
        if not path.exists():
            raise ConfigError(f"--faces {path}: no such file or folder; check the path")
    if options.picture is not None:
        load_extra("emotion_ai.evaluation.canary.figure")  # fails before the work
    versions = _versions(options)
    notes = Console(stderr=True, soft_wrap=True)
    if versions[0] == versions[1]:
        notes.print(
            f"{' and '.join(options.labels)} are both version {versions[0]}; give the canary's number to: emotion-ai "
            f"promote {printable(options.base)} N --label {options.labels[1]}",
            style="yellow",
            highlight=False,
        )
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with (
        FaceClient(options.server, model=options.model, label=options.labels[0]) as stable,
        FaceClient(options.server, model=options.model, label=options.labels[1]) as canary,
        Progress(*columns, console=Console(stderr=True)) as progress,
    ):
        _check_served(options, (stable, canary), versions)
        classes = ClassSet.of(stable.read_crops([np.zeros((CROP_SIZE, CROP_SIZE), np.uint8)]).classes)
        faces = _faces(options, classes)
        task = progress.add_task(f"asking versions {versions[0]} and {versions[1]}", total=1.0)
        both = ask_both(stable, canary, faces, lambda share: progress.update(task, completed=share))
    if _versions(options) != versions:
        raise ConfigError(f"{options.base}: a label was moved during the comparison; run it again")
    verdict = judge(faces, both, margins, options.seed)
    record = {
        "base": str(options.base),
        "server": options.server,
        "model": options.model,
        "versions": dict(zip(options.labels, versions, strict=True)),
        **verdict.as_dict(),
    }
    if options.out is not None:
        write_json(options.out, record)
    if options.picture is not None:
        _write_picture(options.picture, verdict, f"version {versions[1]} against {versions[0]}")
    if options.json:
        print_json(record)
    else:
        _print(verdict, versions, options.labels)
    return int(verdict.worse)


def _versions(options: CanaryOptions) -> tuple[int, int]:
    """The versions that the labels name in models.config."""
    read_config = load_extra("emotion_ai_export.registry.model_config").read_config
    labels = next((dict(config.labels) for config in read_config(options.base) if config.name == options.model), None)
    if labels is None:
        raise ConfigError(
            f"{options.base}: models.config does not list {options.model}; give the folder that the server serves"
        )
    for label in options.labels:
        if label not in labels:
            raise ConfigError(
                f"{options.base}: {options.model} has no version labelled {label}; give it to one with: emotion-ai "
                f"promote {options.base} N --label {label}"
            )
    return labels[options.labels[0]], labels[options.labels[1]]


def _check_served(options: CanaryOptions, clients: tuple[FaceClient, FaceClient], versions: tuple[int, int]) -> None:
    """Raises:
    ConfigError: a label is another version on the server, which reads another file or rejects this one.
    """
    for client, label, version in zip(clients, options.labels, versions, strict=True):
        served = int(client.metadata()["model_spec"]["version"])
        if served != version:
            raise ConfigError(
                f"{options.server}: {label} is version {served} there, but {version} in {options.base / CONFIG_FILE}; "
                f"give the folder that the server serves, or move the label with: emotion-ai promote --label {label}"
            )


def _faces(options: CanaryOptions, classes: ClassSet) -> CanaryFaces:
    paths, count, seed = options.faces, options.count, options.seed
    datasets = [path for path in paths if path.suffix.lower() not in PICTURE_SUFFIXES and is_dataset(path, classes)]
    if datasets and len(paths) > 1:
        raise ConfigError(f"--faces {datasets[0]}: a dataset is compared alone; give it without other --faces")
    if datasets or not paths:
        return load_faces(datasets, [], count, seed, classes)
    found = find_photos(paths)
    for problem in found.problems:
        Console(stderr=True, soft_wrap=True).print(printable(problem), style="dim", highlight=False)
    if not found.photos:
        raise ConfigError(f"--faces {paths[0]}: no photos there; give photos, or a dataset")
    return load_faces([], [photo.path for photo in found.photos], count, seed)


def _write_picture(path: Path, verdict: Verdict, title: str) -> None:
    figure: Figure = load_extra("emotion_ai.evaluation.canary.figure").draw_verdict(verdict, title)
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=150, format="png")


def _print(verdict: Verdict, versions: tuple[int, int], labels: tuple[str, str]) -> None:
    console = Console()
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("measure", overflow="fold")
    for label, version in zip(labels, versions, strict=True):
        table.add_column(f"{label} ({version})", justify="right")
    for name in ("difference", f"{LEVEL:.0%} interval", "margin"):
        table.add_column(name, justify="right")
    table.add_column("result")
    for check in verdict.checks:
        table.add_row(check.name, *_cells(check))
    if verdict.checks:
        console.print(table)
    for failure in dict.fromkeys(verdict.failures):
        console.print(Text.assemble(("failed: ", "bold red"), printable(failure)), soft_wrap=True)
    if verdict.identical and not verdict.failures:
        console.print("All answers are the same.", highlight=False)
    reasons = [check.name for check in verdict.checks if check.worse]
    reasons += [f"{len(verdict.failures)} failed requests"] if verdict.failures else []
    answer = Text.assemble("version ", str(versions[1]), " is ")
    answer.append("worse" if verdict.worse else "not worse", "bold red" if verdict.worse else "green")
    answer.append(f" than version {versions[0]} on {verdict.faces:,} faces ({printable(verdict.source)})")
    if reasons:
        answer.append(f": {'; '.join(reasons)}")
    console.print(answer, soft_wrap=True, highlight=False)


def _cells(check: Check) -> tuple[str | Text, ...]:
    both = ["" if value is None else f"{value:.3f}" for value in (check.stable, check.canary)]
    effect, low, high, margin = (
        f"x {value:.2f}" if check.factor else f"{value:+.3f}"
        for value in (check.effect, check.low, check.high, check.margin)
    )
    interval = f"{low.removeprefix('x ')} to {high.removeprefix('x ')}"
    return *both, effect, interval, margin, Text("worse", "bold red") if check.worse else Text("ok", "green")
