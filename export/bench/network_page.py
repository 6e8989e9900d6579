"""The table and the plot of `network_speed`, for docs/performance.md."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from emotion_ai_export.bench.backends import ONNX_RUNTIME, ONNX_TF, OURS
from emotion_ai_export.bench.compare import machine, median_interval
from emotion_ai_export.bench.network_result import BATCHES, ONNX2TF, PEERS, NetworkSpeed

_COLORS = {ONNX_TF: "C3", ONNX2TF: "C1", ONNX_RUNTIME: "C0"}
_SHOWN = 0.25, 4.0
_MARKERS = {ONNX_TF: "s", ONNX2TF: "^", ONNX_RUNTIME: "o"}


def write_page(results: Sequence[NetworkSpeed], folder: Path) -> None:
    """Writes networks.md and networks.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "networks.md").write_text(page(results), encoding="utf-8")
    picture = draw(results)
    picture.savefig(folder / "networks.png", dpi=110)
    plt.close(picture)


def ratios(result: NetworkSpeed, batch: int, peer: str) -> list[float]:
    """Our time relative to a peer's in each round; empty if one of them was not timed."""
    times = result.times.get(str(batch), {})
    return [ours / other for ours, other in zip(times.get(OURS, []), times.get(peer, []), strict=False)]


def medians(results: Sequence[NetworkSpeed], batch: int, peer: str) -> list[float]:
    """The median ratio of each network that both converted."""
    return [float(np.median(found)) for result in results if (found := ratios(result, batch, peer))]


def page(results: Sequence[NetworkSpeed]) -> str:
    """A row for each network, the medians over networks, why a backend was not timed, and the machine."""
    header = ["network", *(f"{name}, batch {batch}" for batch in BATCHES for name in ("ms", *PEERS))]
    rows = [header, ["---", *["---:"] * (len(header) - 1)], _summary(results)]
    rows += [_row(result) for result in results if OURS not in result.notes]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    notes = [f"- {result.network}, {name}: {note}" for result in results for name, note in result.notes.items()]
    found = machine()
    versions = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    rounds = max(len(values) for result in results for times in result.times.values() for values in times.values())
    measured = (
        f"{rounds} rounds, one thread, {found['processor']}, {found['cores']} cores, Python {found['python']}, "
        f"{versions}, at revision {found['revision']}."
    )
    return "\n\n".join(part for part in (table, "\n".join(notes), measured) if part) + "\n"


def _summary(results: Sequence[NetworkSpeed]) -> list[str]:
    cells = ["**median over networks**"]
    for batch in BATCHES:
        cells.append("")
        for peer in PEERS:
            found = medians(results, batch, peer)
            cells.append(
                "**{:.2f}** ({:.2f}–{:.2f}), n={}".format(*median_interval(found), len(found)) if found else ""
            )
    return cells


def _row(result: NetworkSpeed) -> list[str]:
    cells = [result.network]
    for batch in BATCHES:
        cells.append(f"{np.median(result.times[str(batch)][OURS]):.1f}")
        for peer in PEERS:
            found = ratios(result, batch, peer)
            why = result.notes.get(peer, "").partition(":")[0]
            cells.append("{:.2f} ({:.2f}–{:.2f})".format(*median_interval(found)) if found else why)
    return cells


def draw(results: Sequence[NetworkSpeed]) -> Figure:
    """Our time relative to each peer's, a row for each network and a panel for each batch."""
    shown = [result for result in results if result.times]
    figure, panels = plt.subplots(
        1, len(BATCHES), figsize=(11, 1.6 + 0.22 * len(shown)), sharey=True, layout="constrained"
    )
    for batch, axes in zip(BATCHES, panels, strict=True):
        for peer in PEERS:
            points: list[tuple[float, int]] = [
                (float(np.median(found)), place)
                for place, result in enumerate(shown)
                if (found := ratios(result, batch, peer))
            ]
            style: dict[str, Any] = {"color": _COLORS[peer], "marker": _MARKERS[peer], "linestyle": "none"}
            axes.plot([x for x, _ in points], [y for _, y in points], markersize=5, label=peer, **style)
            for x, y in points:
                if x < _SHOWN[0] or x > _SHOWN[1]:  # beyond the panel: its number at the edge
                    beyond = {"x": _SHOWN[x > 1], "ha": "right" if x > 1 else "left"}
                    axes.text(y=y, s=f"{x:.2f}", color=_COLORS[peer], va="center", fontsize="small", **beyond)
        axes.axvline(1, color="0.4", linewidth=1)
        axes.set(xscale="log", xlim=_SHOWN, xlabel="time of the SavedModel relative to theirs", title=f"batch {batch}")
        axes.set_xticks([0.25, 0.5, 1, 2, 4], ["0.25", "0.5", "1", "2", "4"])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].set_yticks(range(len(shown)), [result.network.partition("/")[2] for result in shown])
    panels[0].set_ylim(len(shown) - 0.5, -0.5)
    panels[-1].legend(loc="lower right")
    return figure
