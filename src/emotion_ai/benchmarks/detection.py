"""Face detection: recall, false detections and processor time on composed scenes.

    python -m emotion_ai.benchmarks.detection --out runs/detection
    python -m emotion_ai.benchmarks.detection --out runs/detection --faces validation.csv.xz

The faces are the two portraits that come with the package, or those of a keypoint dataset, pasted with a soft edge onto
shapes, textures and noise. Two people show how size, roll, light and image quality matter, not how well the detector
finds people in general.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from rich.progress import track
from scipy.stats import binomtest

from emotion_ai.benchmarks.scenes import CONDITIONS, SIZE, Scene, compose, dataset_heads, portrait_heads
from emotion_ai.evaluation.plots import save
from emotion_ai.evaluation.statistics import Estimate
from emotion_ai.evaluation.tables import INTERVAL, Cell, Column, Interval, ReportTable
from emotion_ai.files import write_json
from emotion_ai.terminal import Console
from emotion_ai.vision.crops import box_from_detection
from emotion_ai.vision.detector import find_faces
from emotion_ai.vision.overlap import iou
from emotion_ai.vision.photo import load_photo

_MATCH = 0.5  # lowest intersection over union of a detected face


@dataclass(frozen=True)
class DetectionResult:
    """The result of one condition.

    Attributes:
        recall: share of the faces that are found, with Wilson's 95 % interval; None without faces.
        false_boxes: detections per scene that match no face.
        milliseconds: median processor time of `find_faces`, which takes one core.
    """

    recall: Estimate | None
    false_boxes: float
    milliseconds: float


def measure(scenes: Sequence[Scene]) -> DetectionResult:
    """Runs the detector on scenes of one condition."""
    hits = faces = extra = 0
    times = []
    for scene in scenes:
        rgb = load_photo(scene.file).rgb
        start = time.process_time()
        found = [box_from_detection(face.points) for face in find_faces(rgb)]
        times.append(time.process_time() - start)
        matched = sum(any(iou(box, true) >= _MATCH for box in found) for true in scene.boxes)
        hits, faces, extra = hits + matched, faces + len(scene.boxes), extra + max(len(found) - matched, 0)
    recall = None
    if faces:
        interval = binomtest(hits, faces).proportion_ci(method="wilson")
        recall = Estimate(hits / faces, float(interval.low), float(interval.high), faces)
    return DetectionResult(recall, extra / len(scenes), 1000 * float(np.median(times)))


def benchmark(heads: Sequence[Image.Image], scenes: int, seed: int, out: Path) -> dict[str, DetectionResult]:
    """Runs every condition; writes `detection.json` and `detection.png` into `out`.

    Args:
        heads: to paste, with a margin.
        scenes: of each condition.
    """
    results, examples = {}, {}
    console = Console(stderr=True)
    for number, condition in track(list(enumerate(CONDITIONS)), "detecting", console=console, transient=True):
        composed = [compose(heads, condition, np.random.default_rng((seed, number, i))) for i in range(scenes)]
        results[condition.name] = measure(composed)
        examples[condition.name] = composed[0]
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "detection.json", {name: asdict(result) for name, result in results.items()})
    save(_picture(examples), out / "detection.png")
    return results


def results_table(results: Mapping[str, DetectionResult], scenes: int) -> ReportTable:
    """The results as a table."""
    columns = (
        *(Column("faces"), Column("n"), Column("recall", ".3f"), Column(INTERVAL.name, ".3f")),
        *(Column("false boxes per scene", ".2f"), Column("processor ms", ".0f")),
    )
    rows = []
    for name, result in results.items():
        r = result.recall
        found: tuple[Cell, ...] = (r.n, r.value, Interval(r.low, r.high)) if r else (None, None, None)
        rows.append((name, *found, result.false_boxes, result.milliseconds))
    return ReportTable(f"{scenes} scenes of {SIZE[0]}x{SIZE[1]} pixels each", columns, tuple(rows))


def _picture(examples: Mapping[str, Scene]) -> Figure:
    """A scene of each condition with true boxes (green) and detected ones (orange)."""
    rows = -(-len(examples) // 5)
    figure = Figure(figsize=(16, 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, 5, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, (name, scene) in zip(axes, examples.items(), strict=False):
        rgb = load_photo(scene.file).rgb
        axis.imshow(rgb)
        found = [box_from_detection(face.points) for face in find_faces(rgb)]
        for boxes, colour, width in ((scene.boxes, "#3ddc97", 3.0), (found, "#ff8c42", 1.2)):
            for box in boxes:
                axis.add_patch(Rectangle((box.left, box.top), box.size, box.size, fill=False, color=colour, lw=width))
        axis.set(xlim=(0, rgb.shape[1]), ylim=(rgb.shape[0], 0))
        axis.set_title(name, fontsize=9)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m emotion_ai.benchmarks.detection", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/detection"), help="output folder (%(default)s)")
    parser.add_argument("--faces", type=Path, help="a keypoint CSV, instead of the two portraits")
    parser.add_argument("--scenes", type=int, default=10, help="scenes of each condition (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.scenes < 1:
        parser.error(f"--scenes must be at least 1, got {options.scenes}")
    heads = dataset_heads(options.faces) if options.faces else portrait_heads()
    results = benchmark(heads, options.scenes, options.seed, options.out)
    console = Console(width=120)
    console.print(results_table(results, options.scenes).as_rich())
    console.print(f"wrote {options.out / 'detection.json'} and {options.out / 'detection.png'}", soft_wrap=True)


if __name__ == "__main__":
    main()
