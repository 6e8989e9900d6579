"""The plot of `emotion_ai.benchmarks.growth`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from emotion_ai.files import atomic_path

_NAMES = {"ingest": "reading a dataset", "epoch": "an epoch", "score": "bulk scoring", "report": "a report"}


class Point(Protocol):
    """What is drawn of a run."""

    @property
    def faces(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def memory(self) -> float: ...


def draw(runs: Mapping[Any, Sequence[Point]], growth: Mapping[Any, Mapping[str, float]], path: Path) -> None:
    """Writes a PNG file: time and memory against the number of faces, both axes logarithmic."""
    with sns.axes_style("whitegrid"):
        figure = Figure(figsize=(10, 4.6), layout="constrained")
        time, memory = figure.subplots(1, 2)
    for (stage, points), colour in zip(runs.items(), sns.color_palette("deep"), strict=False):
        faces = np.array([point.faces for point in points])
        seconds = np.array([point.seconds for point in points])
        name = f"{_NAMES.get(stage, stage)}: exponent {growth[stage]['exponent']:.2f}"
        time.loglog(faces, seconds, "o", color=colour, label=name)
        middle = np.exp(np.log(seconds / faces).mean())
        time.loglog(faces, middle * faces, "--", color=colour, linewidth=1, alpha=0.6)
        memory.loglog(faces, [point.memory for point in points], "o-", color=colour)
    time.set(title="CPU time; dashed: in proportion", xlabel="faces", ylabel="seconds")
    memory.set(title="Most memory", xlabel="faces", ylabel="MiB")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=110)
