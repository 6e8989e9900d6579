"""`emotion-ai drift`: files in; a table or JSON, a picture and an exit code out."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from emotion_ai.errors import DataError
from emotion_ai.evaluation.answers import AnsweredFaces, find_reference, read_answers
from emotion_ai.evaluation.drift import ANSWERS, Drift, DriftTest, class_shares, compare
from emotion_ai.evaluation.drift_plot import drift_figure, save_drift
from emotion_ai.terminal import Console, print_json


@dataclass(frozen=True)
class DriftOptions:
    """What to compare with what: the options of the command."""

    reference: Path
    log: Path
    version: int | None = None
    group: str = "source"
    measures: tuple[str, ...] = ()
    false_alarms: float = 0.01
    min_difference: float = 0.08
    out: Path = Path("drift.png")


def drift_command(options: DriftOptions, json: bool) -> int:
    """Compares, prints, draws; returns the exit code: 1 for drift, otherwise 0.

    Raises:
        ConfigError: an option is invalid.
        DataError: a file is missing or damaged, or there are too few answers.
    """
    test = DriftTest(options.false_alarms, options.min_difference, options.measures or DriftTest().measures)
    reference, log = _samples(options)
    drift = compare(reference, log, test)
    save_drift(drift_figure(reference, log, drift), options.out)
    if json:
        print_json(_record(reference, log, drift, test))
    else:
        _show(reference, log, drift, test)
        Console(stderr=True).wrote(options.out)
    return int(drift.alarm)


def _samples(options: DriftOptions) -> tuple[AnsweredFaces, AnsweredFaces]:
    log = read_answers(options.log, options.version, options.group)
    path = find_reference(options.reference, options.version, log.versions)
    number = path.parent.parent.name if path != options.reference else ""
    if options.version is None and number.isdecimal():  # a version's own reference
        version = int(number)
        if log.versions and version not in log.versions:
            answered = ", ".join(map(str, log.versions))
            raise DataError(f"{options.log}: holds answers of version {answered}, not of {version}")
        log = read_answers(options.log, version, options.group)
    return read_answers(path, group=options.group), log


def _record(reference: AnsweredFaces, log: AnsweredFaces, drift: Drift, test: DriftTest) -> dict[str, Any]:
    samples = {}
    for name, sample, faces, groups in zip(
        ("reference", "log"), (reference, log), drift.faces, drift.groups, strict=True
    ):
        samples[name] = {
            "path": str(sample.path),
            "description": sample.description,
            "versions": list(sample.versions),
            "faces": faces,
            "groups": groups,
            "failed": sample.failed,
            "answers": class_shares(sample),
        }
    return {
        "drift": drift.alarm,
        "false_alarms": test.false_alarms,
        "min_difference": test.min_difference,
        **samples,
        "measures": [asdict(difference) for difference in drift.differences],
        "left_out": list(drift.left_out),
    }


def _show(reference: AnsweredFaces, log: AnsweredFaces, drift: Drift, test: DriftTest) -> None:
    console = Console(highlight=False)
    table = Table()
    for name in ("measure", "", "reference", "log", "difference", "p", ""):
        table.add_column(name, justify="left" if name in ("measure", "") else "right")
    for d in drift.differences:
        values = (f"{value:.0%}" if d.measure == ANSWERS else f"{value:.3g}" for value in (d.reference, d.log))
        verdict = Text("drifted", "bold red") if d.drifted else Text("same", "green")
        table.add_row(d.measure, d.what, *values, f"{d.value:.3f}", f"{d.p:.2g}", verdict)
    console.print(table)
    for sample, faces, groups in zip((reference, log), drift.faces, drift.groups, strict=True):
        failed = f", {sample.failed} failed requests" if sample.failed else ""
        independent = "" if groups == faces else f" in {groups:,} groups"
        of = f" ({sample.description})" if sample.description else ""
        console.print(f"{sample.path}{of}: {faces:,} faces{independent}{failed}", soft_wrap=True)
    if drift.left_out:
        console.print(f"not compared, because the reference lacks it: {', '.join(drift.left_out)}", soft_wrap=True)
    console.print(
        f"drifted: a difference of {test.min_difference:g} or more, with false alarms in at most "
        f"{test.false_alarms:.1%} of comparisons",
        soft_wrap=True,
    )
