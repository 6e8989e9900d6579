"""Ablations: one change at a time against a base, several seeds each, compared on the validation split."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from matplotlib.figure import Figure
from omegaconf import DictConfig
from rich.markdown import Markdown

from emotion_ai.contract import TASKS, Task
from emotion_ai.errors import CheckpointError, ConfigError, DataError
from emotion_ai.evaluation.plots import forest, save
from emotion_ai.evaluation.statistics import Estimate, t_interval
from emotion_ai.files import locked_folder, write_json, write_text
from emotion_ai.legacy import translate_overrides
from emotion_ai.models import load_network
from emotion_ai.provenance import environment
from emotion_ai.studies.runs import run
from emotion_ai.terminal import Console

BASE = "base"
BEGIN, END = "<!-- ablations: begin -->", "<!-- ablations: end -->"
_FILES = {"emotion": {"train": "fer2013.csv*"}, "keypoints": {"train": "training.csv*", "test": "validation.csv*"}}
_METRICS = {"emotion": "val/accuracy", "keypoints": "val/rmse"}
_VOTES = "fer2013new.csv"


@dataclass(frozen=True)
class Row:
    """The base or one change, with one validation value per seed.

    Attributes:
        asks: the question behind the change.
        values: accuracy, or RMSE in pixels.
        mean: with the t interval over seeds.
        spread: standard deviation over seeds.
        differences: from the base of the same seed.
        difference: their mean with the paired t interval; None for the base.
        seconds: of training, mean over seeds.
    """

    asks: str
    overrides: list[str]
    values: list[float]
    mean: Estimate
    spread: float
    differences: list[float]
    difference: Estimate | None
    seconds: float
    parameters: int


def ablations(budget: str, data: Path | None, out: Path, overrides: Sequence[str] = ()) -> dict[str, dict[str, Row]]:
    """Runs the changes of `conf/ablations.yaml`; writes `ablations.json`, `.md` and one figure per task into `out`.

    Runs lie in `out/<task>/<change>/seed-<seed>`; started again, finished ones are read and killed ones resumed. A seed
    decides split, initial weights and order, for the base as for the changes. The test split is not used.

    Args:
        budget: "full"; "cpu", with smaller networks and fewer epochs; or "quick", a test of the pipeline on few faces.
        data: folder that holds, at any depth, fer2013.csv*, training.csv* with validation.csv*, fer2013new.csv; tasks
            whose file it lacks are left out. None generates synthetic faces, for "quick" only.
        overrides: of `emotion-ai train`, for every run.

    Returns:
        The rows by task and name.

    Raises:
        ConfigError: an unknown budget, a full one without data or document, or a folder in use or with other runs.
        DataError: no dataset in the folder.
    """
    plan = load_plan()
    if budget not in plan.budgets:
        raise ConfigError(f"budget {budget}: choose one of {', '.join(plan.budgets)}")
    chosen = plan.budgets[budget]
    document = Path(chosen.document) if chosen.document else None
    if document is not None:
        if data is None:
            raise ConfigError(f"budget {budget} needs real data, as its figures are quoted; give --data FOLDER")
        _with_table(document, "")  # an error now, not after the runs
    sources = {task: _sources(task, data) for task in TASKS}
    if data is not None and not any(sources.values()):
        raise DataError(f"{data}: holds neither fer2013.csv nor training.csv; give the folder that contains them")
    with locked_folder(out):
        return _ablations(chosen, budget, data, sources, out, overrides)


def _ablations(
    chosen: DictConfig,
    budget: str,
    data: Path | None,
    sources: dict[Task, list[str]],
    out: Path,
    overrides: Sequence[str],
) -> dict[str, dict[str, Row]]:
    plan, document = load_plan(), Path(chosen.document) if chosen.document else None
    votes = next(data.rglob(_VOTES), None) if data is not None else None
    rows: dict[str, dict[str, Row]] = {}
    left_out = list(chosen.without)
    for task in TASKS:
        if data is not None and not sources[task]:
            left_out.append(f"{task}, without {_FILES[task]['train']}")
            continue
        changes = {BASE: {"asks": "the experiment unchanged", "overrides": []}, **plan[task].changes}
        changes = {name: change for name, change in changes.items() if name not in chosen.without}
        if votes is None:
            without = [name for name, change in changes.items() if "{votes}" in "".join(change["overrides"])]
            left_out += [f"{name}, without {_VOTES}" for name in without]
            changes = {name: change for name, change in changes.items() if name not in without}
        shared = [*plan[task].base, *chosen[task], *sources[task], "test=false", *overrides]
        rows[task] = _rows(task, shared, changes, chosen.seeds, votes, out)
        save(_picture(task, rows[task]), out / f"{task}.png")
    table = _markdown(rows, chosen.note, len(chosen.seeds), left_out)
    content = {task: {name: asdict(row) for name, row in of.items()} for task, of in rows.items()}
    settings = {"budget": budget, "seeds": list(chosen.seeds), "overrides": list(overrides), "left_out": left_out}
    write_json(out / "ablations.json", {**settings, "rows": content, **environment()})
    write_text(out / "ablations.md", table)
    if document is not None:
        images = document.parent / "images"
        images.mkdir(exist_ok=True)
        for task in (task for task in TASKS if task in rows):
            picture = images / f"ablations-{task}.png"
            save(_picture(task, rows[task]), picture)
            table += f"\n![{task}: each change against the base](images/{picture.name})\n"
        write_text(document, _with_table(document, table))
    console = Console()
    console.print(Markdown(table))
    console.wrote(document or out / "ablations.md")
    return rows


def load_plan() -> DictConfig:
    """The budgets and changes of `conf/ablations.yaml`."""
    with initialize_config_module("emotion_ai_conf", version_base="1.3"):
        return compose("ablations")


def _rows(
    task: Task,
    shared: list[str],
    changes: dict[str, Any],
    seeds: Sequence[int],
    votes: Path | None,
    out: Path,
) -> dict[str, Row]:
    console, rows = Console(), {}
    base: list[float] = []
    twice = 2 * _config(shared).epochs
    for place, (name, change) in enumerate(changes.items()):
        records, folder = [], out / task / name.replace(" ", "-")
        for index, seed in enumerate(seeds):
            number = place * len(seeds) + index + 1
            console.rule(f"{task}: {name}, seed {seed} (run {number} of {len(changes) * len(seeds)})")
            # of the same seed: another seed's network has seen these validation faces
            teacher = out / task / BASE / f"seed-{seed}" / "network.safetensors"
            filled = [
                text.replace("{base}", _quoted(teacher))
                .replace("{votes}", _quoted(votes))
                .replace("{twice}", f"{twice}")
                for text in change["overrides"]
            ]
            records.append(run(_config([*shared, *filled, f"seed={seed}", f"out={_quoted(folder / f'seed-{seed}')}"])))
        if missing := [
            seed for seed, record in zip(seeds, records, strict=True) if _METRICS[task] not in record.metrics
        ]:
            raise CheckpointError(f"{folder}/seed-{missing[0]}/run.json: has no {_METRICS[task]}; delete its folder")
        values = [record.metrics[_METRICS[task]] for record in records]
        base = base or values
        differences = [value - reference for value, reference in zip(values, base, strict=True)]
        network, _ = load_network(folder / f"seed-{seeds[0]}" / "network.safetensors", task)
        rows[name] = Row(
            asks=change["asks"],
            overrides=list(change["overrides"]),
            values=values,
            mean=t_interval(values),
            spread=float(np.std(values, ddof=1)),
            differences=differences,
            difference=None if name == BASE else t_interval(differences),
            seconds=float(np.mean([record.seconds or 0.0 for record in records])),
            parameters=sum(parameter.numel() for parameter in network.parameters()),
        )
    return rows


def _config(overrides: list[str]) -> DictConfig:
    try:
        with initialize_config_module("emotion_ai_conf", version_base="1.3"):
            return compose("train", translate_overrides(overrides)[0])
    except HydraException as error:
        raise ConfigError(f"{error}; overrides are those of emotion-ai train") from error


def _sources(task: Task, data: Path | None) -> list[str]:
    """Overrides that name the task's files in the folder; empty without its training file."""
    if data is None:
        return []
    files = {key: next(iter(sorted(data.rglob(pattern))), None) for key, pattern in _FILES[task].items()}
    return [f"data.{key}={_quoted(path)}" for key, path in files.items() if path] if files["train"] else []


def _quoted(path: Path | None) -> str:
    """A path as a value in Hydra's grammar."""
    return "'" + str(path).replace("'", "\\'") + "'"


def _markdown(rows: dict[str, dict[str, Row]], note: str | None, seeds: int, left_out: list[str]) -> str:
    parts = [
        f"Mean over {seeds} seeds (± their standard deviation) on the validation split; difference from the base of "
        "the same seed with Student's 95 % interval over these pairs, not corrected for the number of rows."
    ]
    if note:
        parts = [note, *parts]
    for task, of in rows.items():
        unit, digits = (
            ("RMSE in pixels, lower is better", 3) if task == "keypoints" else ("accuracy, higher is better", 4)
        )
        lines = [
            f"| {task}: {unit} | value | difference (95 %) | seconds | parameters | question |",
            "|---|---|---|---|---|---|",
        ]
        for name, row in of.items():
            d = row.difference
            difference = f"{d.value:+.{digits}f} ({d.low:+.{digits}f} to {d.high:+.{digits}f})" if d else ""
            value = f"{row.mean.value:.{digits}f} ± {row.spread:.{digits}f}"
            lines.append(f"| {name} | {value} | {difference} | {row.seconds:.0f} | {row.parameters:,} | {row.asks} |")
        parts.append("\n".join(lines))
    if left_out:
        parts.append(f"Left out: {'; '.join(left_out)}.")
    return "\n\n".join(parts) + "\n"


def _picture(task: Task, rows: dict[str, Row]) -> Figure:
    changes = {name: row for name, row in rows.items() if row.difference is not None}
    lower = task == "keypoints"
    label = "RMSE in pixels: left of 0 is better" if lower else "accuracy: right of 0 is better"
    return forest(
        {name: row.difference for name, row in changes.items() if row.difference is not None},
        {name: row.differences for name, row in changes.items()},
        f"difference in {label}",
        f"{task}: each change against the base, 95 % intervals over seeds",
        lower_is_better=lower,
    )


def _with_table(document: Path, table: str) -> str:
    """The document with the table between its markers."""
    text = document.read_text() if document.is_file() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ConfigError(f"{document}: has no markers {BEGIN} and {END}; run this in the root of the repository")
    return f"{before}{BEGIN}\n\n{table}\n{END}{after}"
