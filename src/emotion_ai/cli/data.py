"""The command `emotion-ai data`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from emotion_ai.class_set import CLASS_SETS, ClassSet
from emotion_ai.contract import TASKS, Task
from emotion_ai.errors import ConfigError
from emotion_ai.files import write_text
from emotion_ai.terminal import Console, printable

if TYPE_CHECKING:
    from emotion_ai.data.dataset import FaceDataset
    from emotion_ai.data.describe import Description

_SYNTHETIC_COUNT = 500


def data(
    source: Annotated[
        str, typer.Argument(help="CSV file (also .zip, .gz, .xz, .bz2, .tar.gz), image folder, or 'synthetic'.")
    ],
    task: Annotated[
        str | None, typer.Option(help=f"{' or '.join(TASKS)}; by default inferred from the columns.")
    ] = None,
    labels: Annotated[str, typer.Option(help="Meaning of the class ids: auto, five or fer7.")] = "auto",
    out: Annotated[Path, typer.Option(help="Folder for the figures and description.json.")] = Path("runs/data"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the description as JSON.")] = False,
    classes: Annotated[
        str, typer.Option(help="five, seven, or folders for whatever the class folders are called.")
    ] = "five",
) -> None:
    """Describe a dataset: counts, class balance, duplicates, contradicting labels, missing keypoints; with figures."""
    from emotion_ai.data.describe import describe, write_pictures

    console, progress = Console(), Console(stderr=True)
    chosen = next((known for known in TASKS if known == task), None)
    if task is not None and chosen is None:
        raise ConfigError(f"task={task}: choose one of {', '.join(TASKS)}")
    if classes not in CLASS_SETS:
        raise ConfigError(f"classes={classes}: choose one of {', '.join(CLASS_SETS)}")
    faces = _faces(source, chosen, labels, CLASS_SETS[classes])
    with progress.status(f"describing {len(faces):,} faces"):
        description = describe(faces)
        try:
            pictures = write_pictures(faces, out)
            name = source if description.source == printable(source) else description.source  # in JSON as it is
            record = description.as_dict() | {"source": name, "pictures": [path.name for path in pictures]}
            text = json.dumps(record, indent=2)
            write_text(out / "description.json", text + "\n")
        except OSError as error:
            raise ConfigError(f"out={out}: cannot be written ({error.strerror}); choose another --out") from error
    if as_json:
        print(text)
    else:
        console.print(_table(description))
        console.print(f"{out}/: description.json, {', '.join(path.name for path in pictures)}", highlight=False)


def _faces(source: str, task: Task | None, labels: str, classes: ClassSet | None) -> "FaceDataset":
    from emotion_ai.data.loaders import load
    from emotion_ai.data.splits import SYNTHETIC
    from emotion_ai.data.synthetic import synthetic_faces

    if source == SYNTHETIC:
        return synthetic_faces(_SYNTHETIC_COUNT, 0, classes).faces(task or "keypoints")
    return load(source, task, labels, classes=classes)


def _table(d: "Description") -> Table:
    table = Table(
        title=f"{printable(Path(d.source).name or d.source)}: {d.task}", show_header=False, title_justify="left"
    )
    table.add_column("what", style="bold")
    table.add_column("figure", justify="right")
    table.add_column("note", style="dim")

    def add(what: str, figure: int | str, note: str = "") -> None:
        table.add_row(what, figure if isinstance(figure, str) else f"{figure:,}", note)

    add("faces", d.faces, f"{d.width}x{d.height} gray, mean {d.pixel_mean:.1f}, standard deviation {d.pixel_std:.1f}")
    for part, count in d.parts.items():
        add(f"  {part}", count)
    for name, count in d.classes.items():
        shares = " ".join(f"{part} {counts[name]:,}" for part, counts in d.classes_of_parts.items())
        add(f"  {list(d.classes).index(name)} {printable(name)}", count, f"{count / d.faces:.1%}  {shares}".rstrip())
    if d.missing:
        add("all keypoints known", d.complete)
        add("no keypoint known", d.unannotated)
        for name, count in d.missing.items():
            if count > d.unannotated:
                add(f"  without {name}", count)
        add("keypoints outside the crop", d.outside)
    add("duplicate groups", d.duplicate_groups, f"identical pixels; {d.duplicate_copies:,} extra copies")
    if len(d.parts) > 1:
        add("  across parts", d.duplicate_groups_across_parts)
    add("  contradicting", d.contradictory_groups, f"different targets; {d.contradictory_faces:,} faces")
    add("blank images", d.blank, "all pixels equal")
    return table
