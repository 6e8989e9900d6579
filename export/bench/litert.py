"""LiteRT files on validation faces: RMSE or accuracy of each kind, and the difference to the checkpoint.

    emotion-ai export out=models checkpoint=bundled litert=[float32,float16,int8]
    python -m emotion_ai_export.bench.litert models/face/1 --keypoints validation.csv --emotion fer2013.csv

Several versions may be given, such as one whose int8 files were calibrated with other faces.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from hydra import compose, initialize_config_module
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.progress import track

from emotion_ai.contract import IMAGES_INPUT, OUTPUTS, Task
from emotion_ai.data.batches import image_tensor, resize_to_crops
from emotion_ai.data.dataset import FaceDataset
from emotion_ai.errors import ConfigError, EmotionAIError
from emotion_ai.evaluation.evaluated_faces import evaluated_faces
from emotion_ai.evaluation.metrics import KeypointErrors
from emotion_ai.evaluation.plots import folds_plot, save
from emotion_ai.evaluation.stage import paired_test
from emotion_ai.evaluation.statistics import Estimate, Units, bootstrap
from emotion_ai.evaluation.tables import INTERVAL, Cell, Column, Interval, ReportTable
from emotion_ai.evaluation.units import AUTO, resampling_units
from emotion_ai.files import write_text
from emotion_ai.models import FaceNetwork, load_network
from emotion_ai.published import PARITY_FILE, litert_file
from emotion_ai.terminal import Console, print_error
from emotion_ai_export.convert.litert import LiteRTKind, run_litert

_BATCH = 64
_CHECKPOINT = "checkpoint"

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class LiteRTRow:
    """A network on validation faces.

    Attributes:
        name: the kind of file, for int8 with its calibration, or "checkpoint".
        score: RMSE in pixels of the crop, or accuracy of the five emotions.
        difference: of the score to the checkpoint's, on the same faces; None for the checkpoint.
        megabytes: of the file; None for the checkpoint.
    """

    task: Task
    name: str
    score: Estimate
    difference: Estimate | None = None
    megabytes: float | None = None


def measure(versions: Sequence[Path], task: Task, faces: FaceDataset, units: Units, seed: int = 0) -> list[LiteRTRow]:
    """The checkpoint's row, then one for each file of the versions: float files of the first version only.

    Args:
        versions: folders of published face versions whose networks are the bundled ones.
        task: of the faces.
        faces: annotated with keypoints, or one of the five emotions.
        units: what the intervals resample.
        seed: of the bootstrap.

    Raises:
        ConfigError: a version without LiteRT files.
        ExportError: LiteRT rejects a file, or crashes.
    """
    network = load_network("bundled", task).network
    crops = np.concatenate([_crops(part) for part in _parts(faces.images)])
    reference = np.concatenate([_answers(network, part) for part in _parts(crops)])
    rows = [LiteRTRow(task, _CHECKPOINT, _score(task, reference, faces, units, seed))]
    for name, file in track(_files(versions, task), task, transient=True, console=Console(stderr=True)):
        content = file.read_bytes()
        batches = [{IMAGES_INPUT: part} for part in _parts(crops)]
        found = np.concatenate([answer[OUTPUTS[task][0]] for answer in run_litert(content, batches, name)])
        difference = paired_test(found, reference, faces, seed, units).difference
        rows.append(LiteRTRow(task, name, _score(task, found, faces, units, seed), difference, len(content) / 1e6))
    return rows


def _files(versions: Sequence[Path], task: Task) -> list[tuple[str, Path]]:
    found: list[tuple[str, Path]] = []
    for version in versions:
        files = {kind: version / litert_file(task, kind) for kind in get_args(LiteRTKind)}
        made = {kind: file for kind, file in files.items() if file.is_file()}
        if not made:
            raise ConfigError(f"{version}: has no LiteRT files of {task}; export it with litert=[float32,float16,int8]")
        if int8 := made.pop("int8", None):
            made[f"int8, {_calibration(version)}"] = int8
        found += [(name, file) for name, file in made.items() if file == int8 or version == versions[0]]
    return found


def _calibration(version: Path) -> str:
    proof: dict[str, Any] = json.loads((version / PARITY_FILE).read_text())
    return str(proof["litert"]["calibration"]["source"])


def _parts(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    return (values[start : start + _BATCH] for start in range(0, len(values), _BATCH))


def _crops(images: NDArray[np.uint8]) -> Floats:
    return resize_to_crops(image_tensor(images)).numpy().transpose(0, 2, 3, 1)


def _answers(network: FaceNetwork, crops: Floats) -> Floats:
    """What is served: keypoints (N, 15, 2), or probabilities of the five emotions (N, 5)."""
    images = torch.from_numpy(crops.transpose(0, 3, 1, 2).copy())
    with torch.inference_mode():
        return (network(images) if network.task == "keypoints" else network.classified(images)[0]).numpy()


def _score(task: Task, found: Floats, faces: FaceDataset, units: Units, seed: int) -> Estimate:
    if task == "keypoints":
        squares, counts = KeypointErrors.of(found, faces.points).per_face
        return bootstrap(lambda rows: float(np.sqrt(squares[rows].sum() / counts[rows].sum())), units, seed)
    correct = found.argmax(1) == faces.labels
    return bootstrap(lambda rows: float(correct[rows].mean()), units, seed)


def annotated(task: Task, data: str, part: str, people: str) -> tuple[FaceDataset, Units]:
    """The faces of a dataset as `emotion-ai evaluate` takes them, and what intervals resample."""
    settings = [f"task={task}", "checkpoint=bundled", f"data.path='{data}'", f"data.part={part}"]
    with initialize_config_module("emotion_ai_conf", version_base="1.3"):
        chosen = evaluated_faces(compose("evaluate", [*settings, f"data.people='{people}'"]))
    return chosen.faces, resampling_units(people, chosen.rows, chosen.faces.images)


def table(rows: Sequence[LiteRTRow], faces: int, units: Units) -> ReportTable:
    """Of one task."""
    task = rows[0].task
    digits = ".3f" if task == "keypoints" else ".4f"
    heading = "RMSE, px" if task == "keypoints" else "accuracy"
    interval, finer = Column(INTERVAL.name, digits), Column(INTERVAL.name, "+z.4f")
    columns = (
        Column(task),
        Column(heading, digits),
        interval,
        Column("difference", "+z.4f"),
        finer,
        Column("MB", ".2f"),
    )
    cells: list[tuple[Cell, ...]] = []
    for row in rows:
        change = row.difference
        ends = Interval(change.low, change.high) if change else None
        score = (row.score.value, Interval(row.score.low, row.score.high))
        cells.append((row.name, *score, change.value if change else None, ends, row.megabytes))
    return ReportTable(f"{faces:,} faces; intervals resample {units.count:,} {units.name}", columns, tuple(cells))


def picture(rows: Sequence[LiteRTRow]) -> Figure:
    """Each file's difference to its checkpoint, a panel for each task."""
    panels: dict[str, dict[str, Estimate]] = {}
    for row in rows:
        if row.difference:
            name = "RMSE, px" if row.task == "keypoints" else "accuracy"
            panels.setdefault(f"difference in {name}", {})[f"{row.name} ({row.megabytes:.1f} MB)"] = row.difference
    figure = folds_plot(panels, "LiteRT files against their checkpoints")
    for axis in figure.axes:
        axis.axvline(0, color="black", lw=1)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="+", type=Path, help="folders of published face versions")
    parser.add_argument("--keypoints", help="dataset with keypoints")
    parser.add_argument("--people", default=AUTO, help="file with the people of that dataset")
    parser.add_argument("--emotion", help="dataset with expressions")
    parser.add_argument("--part", default="PublicTest", help="of the dataset with expressions")
    parser.add_argument("--page", type=Path, help="write the tables here, as Markdown")
    parser.add_argument("--picture", type=Path, help="write the differences here, as PNG")
    arguments = parser.parse_args()
    given: dict[Task, tuple[str, str, str]] = {}
    if arguments.keypoints:
        given["keypoints"] = (arguments.keypoints, "null", arguments.people)
    if arguments.emotion:
        given["emotion"] = (arguments.emotion, arguments.part, AUTO)
    if not given:
        parser.error("give --keypoints, --emotion or both")
    console, pages, measured = Console(), [], list[LiteRTRow]()
    for task, source in given.items():
        faces, units = annotated(task, *source)
        rows = measure(arguments.versions, task, faces, units)
        measured += rows
        found = table(rows, len(faces), units)
        console.print(found.as_rich())
        pages.append(f"{found.title}:\n\n{found.as_markdown()}\n")
    if arguments.page:
        write_text(arguments.page, "\n".join(pages))
    if arguments.picture:
        save(picture(measured), arguments.picture)


if __name__ == "__main__":
    try:
        main()
    except (EmotionAIError, OSError) as error:
        print_error(error)
        sys.exit(2)
