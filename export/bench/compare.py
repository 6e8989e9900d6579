"""Compares a benchmark with a baseline: `python -m emotion_ai_export.bench.compare RESULT BASELINE [--fail]`.

A figure is worse if the 95 % interval of its ratio to the baseline lies beyond 1 by more than the margin.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from scipy.stats import bootstrap

from emotion_ai.errors import ConfigError, EmotionAIError
from emotion_ai.provenance import environment
from emotion_ai.terminal import Console, print_error

MARGIN = 0.1

_RUNTIMES = {"tensorflow": "tensorflow", "onnxruntime": "onnxruntime", "ai-edge-litert": "ai_edge_litert"}
"""Packages that are not always installed, and their modules."""


@dataclass(frozen=True)
class Figure:
    """One measured quantity.

    Attributes:
        name: the same in every run.
        values: one per round.
        higher_is_better: a rate rather than a time or a count.
    """

    name: str
    values: list[float]
    higher_is_better: bool = False


@dataclass(frozen=True)
class Change:
    """A figure's ratio to the baseline's: of the medians, with its 95 % interval.

    Attributes:
        verdict: "worse", "better", or "" within the margin.
    """

    name: str
    baseline: float
    current: float
    ratio: float
    low: float
    high: float
    verdict: str


def compare(current: Sequence[Figure], baseline: Sequence[Figure], margin: float = MARGIN) -> list[Change]:
    """The changes of all figures that both have.

    Raises:
        ConfigError: they have none in common.
    """
    earlier = {figure.name: figure for figure in baseline}
    common = [figure for figure in current if figure.name in earlier]
    if not common:
        raise ConfigError("no figure of the baseline was measured; run the benchmark with the baseline's settings")
    return [_change(figure, earlier[figure.name], margin) for figure in common]


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The median and its bootstrap 95 % interval."""
    if len(values) < 2:
        return (float(values[0]),) * 3
    interval = bootstrap((values,), np.median, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    return float(np.median(values)), float(interval.low), float(interval.high)


def write_table(changes: list[Change], console: Console, title: str = "Ratio to the baseline (95 %)") -> None:
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("figure", "baseline", "now", "ratio", ""):
        table.add_column(name, justify="left" if name in ("figure", "") else "right", no_wrap=name != "figure")
    for change in changes:
        style = {"worse": "bold red", "better": "green", "": None}[change.verdict]
        ratio = f"{change.ratio:.2f} ({change.low:.2f}-{change.high:.2f})"
        table.add_row(
            change.name, f"{change.baseline:.4g}", f"{change.current:.4g}", ratio, change.verdict, style=style
        )
    console.print(table)


def figures_record(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """For a result's JSON, with four significant digits."""
    return [{**asdict(figure), "values": [float(f"{value:.4g}") for value in figure.values]} for figure in figures]


def read_result(file: Path) -> dict[str, Any]:
    """A benchmark's JSON, with its "figures" as a list of `Figure`.

    Raises:
        ConfigError: the file is missing, or not a benchmark's result.
    """
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        return {**record, "figures": [Figure(**figure) for figure in record["figures"]]}
    except FileNotFoundError as error:
        raise ConfigError(f"{file}: no such file; check the path") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file}: not a result of this benchmark ({error!r})") from error


def read_figures(file: Path) -> list[Figure]:
    """The figures of a benchmark's JSON; raises as `read_result` does."""
    figures: list[Figure] = read_result(file)["figures"]
    return figures


def machine() -> dict[str, Any]:
    """Software versions, processor and number of cores, for a result's JSON."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        pairs = (line.partition(":") for line in cpuinfo.read_text().splitlines())
        found = {key.strip(): value.strip() for key, _, value in pairs}
        flags = found.get("flags", "").split()
        vectors = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_tile") if name in flags]
        model = " ".join([found.get("model name", model), *vectors])
    described = environment()
    runtimes = {name: version(name) for name in _RUNTIMES if find_spec(_RUNTIMES[name])}
    return {**described, "packages": described["packages"] | runtimes, "processor": model, "cores": os.cpu_count()}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `report`, for the benchmarks' own parsers."""
    parser.add_argument("--margin", type=float, default=MARGIN, help="change to tolerate, e.g. 0.1 for 10 %%")
    parser.add_argument("--fail", action="store_true", help="exit with 1 if a figure is worse than the baseline")


def report(current: Sequence[Figure], baseline: Path, options: argparse.Namespace) -> int:
    """Prints the comparison; returns the exit code.

    Raises:
        ConfigError: the baseline cannot be read, or has no figure in common.
    """
    changes = compare(current, read_figures(baseline), options.margin)
    write_table(changes, Console())
    worse = sum(change.verdict == "worse" for change in changes)
    summary = f"{worse} of {len(changes)} figures are worse than in {baseline} by more than {options.margin:.0%}"
    Console().print(summary, soft_wrap=True, highlight=False)
    return int(bool(worse and options.fail))


def main() -> None:
    parser = argparse.ArgumentParser(prog="emotion_ai_export.bench.compare", description=__doc__)
    parser.add_argument("result", type=Path, help="JSON of a benchmark")
    parser.add_argument("baseline", type=Path, help="JSON of an earlier one")
    add_options(parser)
    options = parser.parse_args()
    try:
        sys.exit(report(read_figures(options.result), options.baseline, options))
    except EmotionAIError as error:
        print_error(error)
        sys.exit(2)


def _change(current: Figure, baseline: Figure, margin: float) -> Change:
    medians = float(np.median(current.values)), float(np.median(baseline.values))
    ratio = low = high = medians[0] / medians[1]
    if min(len(current.values), len(baseline.values)) > 1:
        samples = (current.values, baseline.values)
        interval = bootstrap(samples, _ratio_of_medians, method="percentile", rng=np.random.default_rng(0))
        low, high = map(float, interval.confidence_interval)
    above, below = low > 1 + margin, high < 1 / (1 + margin)
    worse, better = (below, above) if current.higher_is_better else (above, below)
    verdict = "worse" if worse else "better" if better else ""
    return Change(current.name, medians[1], medians[0], ratio, low, high, verdict)


def _ratio_of_medians(current: Any, baseline: Any, axis: int) -> Any:
    return np.median(current, axis=axis) / np.median(baseline, axis=axis)


if __name__ == "__main__":
    main()
