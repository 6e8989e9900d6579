"""Machines and cost for a billion faces a day and for ten million training faces, from measured figures.

`python -m emotion_ai.benchmarks.scale docs/benchmarks/scale.json` prints the tables of `docs/scale.md`.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DAY = 86_400
"""Seconds."""


@dataclass(frozen=True)
class Figures:
    """Measured on one core or GPU, except for the prices, which are assumed.

    Attributes:
        pictures: per second and core, with bulk scoring: a small picture with one face.
        crops: per second and core, read by both networks.
        row_bytes: of a face in the Parquet files.
        worker_gib: memory of a worker.
        ingested: faces of a CSV file per second and core.
        trained_gpu: faces per second of the emotion network on a GPU.
        trained_core: the same on a core.
        core_hour, gpu_hour: US dollars.
        picture_kb: assumed size of a picture's file.
    """

    pictures: float
    crops: float
    row_bytes: float
    worker_gib: float
    ingested: float
    trained_gpu: float
    trained_core: float
    core_hour: float
    gpu_hour: float
    picture_kb: float

    @classmethod
    def read(cls, path: Path) -> "Figures":
        """From a JSON file, which has a value and its origin for each."""
        return cls(**{name: float(entry["value"]) for name, entry in json.loads(path.read_text()).items()})


def faces_a_day(figures: Figures, faces: float = 1e9) -> list[tuple[str, ...]]:
    """What it takes to read so many faces a day: name, for pictures with one face each, for crops."""
    rate = faces / DAY
    cores = [math.ceil(rate / each) for each in (figures.pictures, figures.crops)]
    costs = [count * 24 * figures.core_hour for count in cores]
    return [
        ("faces per second", *[f"{rate:,.0f}"] * 2),
        ("cores", *(f"{count:,}" for count in cores)),
        ("machines of 64 cores", *(f"{math.ceil(count / 64):,}" for count in cores)),
        ("memory of the workers", *(f"{count * figures.worker_gib:,.0f} GiB" for count in cores)),
        ("dollars a day", *(f"{cost:,.0f}" for cost in costs)),
        ("dollars for a million faces", *(f"{cost / faces * 1e6:.2f}" for cost in costs)),
        ("read from storage", f"{rate * figures.picture_kb / 1e6:.1f} GB/s", f"{rate * 3.4 / 1e6:.2f} GB/s"),
        ("written a day", *[f"{faces * figures.row_bytes / 1e9:,.0f} GB"] * 2),
    ]


def training(figures: Figures, faces: float = 1e7, epochs: int = 20) -> list[tuple[str, ...]]:
    """What it takes to train on so many faces: name, for images of 48x48 pixels, for 96x96."""
    seconds = faces * epochs / figures.trained_gpu
    cores = faces * epochs / figures.trained_core / 64 / DAY
    sizes = [faces * side**2 for side in (48, 96)]
    return [
        ("images in memory, or mapped", *(f"{size / 1e9:.0f} GB" for size in sizes)),
        ("temporary disk space for splits", *(f"{3 * size / 1e9:.0f} GB" for size in sizes)),
        ("reading the CSV file, once", *[f"{faces / figures.ingested / 60:.0f} minutes"] * 2),
        (f"{epochs} epochs on one GPU", *[f"{seconds / 3600:.1f} hours"] * 2),
        ("dollars", *[f"{seconds / 3600 * figures.gpu_hour:.0f}"] * 2),
        (f"{epochs} epochs on 64 cores", *[f"{cores:.1f} days"] * 2),
    ]


def markdown(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table."""
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def tables(figures: Figures) -> str:
    """Both tables, in Markdown."""
    day = markdown(("a billion faces a day", "pictures", "crops"), faces_a_day(figures))
    return f"{day}\n\n{markdown(('ten million training faces', '48x48', '96x96'), training(figures))}\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m emotion_ai.benchmarks.scale", description=__doc__)
    parser.add_argument("figures", type=Path, help="JSON file of measured figures")
    print(tables(Figures.read(parser.parse_args().figures)), end="")


if __name__ == "__main__":
    main()
