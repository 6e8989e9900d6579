"""How well faces are found: recall, false boxes and time on composed scenes.

    python -m emotion_ai.benchmarks.detection --out runs/detection
    python -m emotion_ai.benchmarks.detection --out runs/detection --faces validation.csv.xz

The faces are the two portraits that come with the package, or annotated ones in the keypoint sets' framing, cut out
with a soft edge and laid onto drawn shapes, textures and noise. Two persons say how size, roll, light and damage
matter, not how well the detector knows all people.
"""

import argparse
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import binomtest

from emotion_ai.data.loaders import load
from emotion_ai.evaluation.plots import save
from emotion_ai.evaluation.statistics import Estimate
from emotion_ai.vision.crops import Box, box_from_detection
from emotion_ai.vision.detector import find_faces
from emotion_ai.vision.overlap import iou
from emotion_ai.vision.photo import PORTRAITS, load_photo

FRAMES = (Box(162, 55, 123), Box(160, 106, 218))
"""Where the portraits' frames lie, by eye."""

SIZE = (960, 720)
_AROUND = 0.35  # of the frame's side, cut out with it: hair, ears and chin
_SAME = 0.5  # intersection over union from which a box counts as the face's


@dataclass(frozen=True)
class Condition:
    """A kind of scene.

    Attributes:
        name: in the table.
        face: side of the faces' frames, pixels; 0 for scenes without a face.
        count: faces in a scene, fewer where they do not fit.
        roll: largest angle, degrees.
        outside: share of the frame's width that the scene's edge cuts off.
        change: made to the whole scene.
        quality: of its JPEG file.
        orientation: EXIF's; 6 stores it lying on its side.
        pieces: faces cut into 16 pieces and mixed: skin, hair and eyes of a face that is none.
    """

    name: str
    face: int
    count: int = 3
    roll: float = 5
    outside: float = 0.0
    change: Callable[[Image.Image], Image.Image] | None = None
    quality: int = 90
    orientation: int = 1
    pieces: int = 0


CONDITIONS = (
    *(Condition(f"{face} pixels", face, 6 if face < 100 else 3) for face in (20, 28, 40, 60, 100, 200, 400)),
    *(Condition(f"100 pixels, rolled up to {roll} degrees", 100, roll=roll) for roll in (15, 30)),
    Condition("100 pixels, a quarter as bright", 100, change=lambda s: ImageEnhance.Brightness(s).enhance(0.25)),
    Condition("100 pixels, twice as bright", 100, change=lambda s: ImageEnhance.Brightness(s).enhance(2)),
    Condition("100 pixels, gray", 100, change=lambda s: s.convert("L").convert("RGB")),
    Condition("100 pixels, blurred by 3", 100, change=lambda s: s.filter(ImageFilter.GaussianBlur(3))),
    Condition("100 pixels, JPEG of quality 10", 100, quality=10),
    Condition("100 pixels, a tenth cut off", 100, 1, outside=0.1),
    Condition("100 pixels, a quarter cut off", 100, 1, outside=0.25),
    Condition("100 pixels, turned by EXIF", 100, orientation=6),
    Condition("12 faces of 60 pixels", 60, 12),
    Condition("no face", 0, 0),
    Condition("no face, four in pieces", 0, 0, pieces=4),
)


@dataclass(frozen=True)
class Scene:
    """A photograph as a JPEG file, and the frames of its faces in pixels of the upright photograph."""

    file: bytes
    frames: list[Box]


@dataclass(frozen=True)
class Row:
    """Of one condition: share of the faces found, with Wilson's 95 % interval; boxes that are none of them, per scene;
    the median processor time of `find_faces`, which takes one core, milliseconds."""

    recall: Estimate | None
    false_boxes: float
    milliseconds: float


def portraits() -> list[Image.Image]:
    """The two portraits' frames with what is around them."""
    heads = []
    for path, frame in zip(PORTRAITS, FRAMES, strict=True):
        left, top = (round(edge - _AROUND * frame.size) for edge in (frame.left, frame.top))
        side = round((1 + 2 * _AROUND) * frame.size)
        heads.append(Image.open(path).convert("RGB").crop((left, top, left + side, top + side)))
    return heads


def annotated(path: Path) -> list[Image.Image]:
    """The faces of a keypoint set; what was around them is not in it, so their borders are repeated."""
    around = round(_AROUND * 96)
    return [Image.fromarray(np.pad(image, around, mode="edge")).convert("RGB") for image in load(path).images]


def compose(heads: Sequence[Image.Image], condition: Condition, rng: np.random.Generator) -> Scene:
    """A scene with some of the heads, at random places that do not overlap."""
    scene, frames = _background(rng), []
    for _ in range(condition.pieces):
        _paste_pieces(scene, heads[int(rng.integers(len(heads)))], rng)
    cell = round(condition.face * (1 + 2 * _AROUND)) + 2
    cells = [(x, y) for x in range(SIZE[0] // cell) for y in range(SIZE[1] // cell)] if condition.face else []
    for x, y in rng.permutation(cells)[: condition.count]:
        room = [(side - side // cell * cell) // (side // cell) for side in SIZE]
        left, top = (round(i * (cell + r) + rng.uniform(0, r)) for i, r in zip((x, y), room, strict=True))
        if condition.outside:
            around = _AROUND * condition.face
            left = -round(around + condition.outside * condition.face)
            if rng.random() < 0.5:
                left = SIZE[0] - cell - left
        head = heads[int(rng.integers(len(heads)))].resize((cell, cell), Image.Resampling.LANCZOS)
        mask = Image.new("L", (cell, cell))
        ImageDraw.Draw(mask).ellipse((cell * 0.04, 0, cell * 0.96, cell - 1), fill=255)
        mask = mask.filter(ImageFilter.GaussianBlur(cell / 40))
        angle = rng.uniform(-condition.roll, condition.roll)
        turned = (part.rotate(angle, Image.Resampling.BICUBIC) for part in (head, mask))
        scene.paste(next(turned), (left, top), next(turned))
        edge = (cell - condition.face) / 2
        frames.append(Box(left + edge, top + edge, condition.face))
    scene = condition.change(scene) if condition.change else scene
    exif = Image.Exif()
    exif[0x0112] = condition.orientation
    stream = io.BytesIO()
    stored = scene.transpose(Image.Transpose.ROTATE_90) if condition.orientation == 6 else scene
    stored.save(stream, "JPEG", quality=condition.quality, exif=exif)
    return Scene(stream.getvalue(), frames)


def measure(scenes: Sequence[Scene]) -> Row:
    """What the detector makes of scenes."""
    hits = faces = extra = 0
    times = []
    for scene in scenes:
        rgb = load_photo(scene.file).rgb
        start = time.process_time()
        found = [box_from_detection(face.points) for face in find_faces(rgb)]
        times.append(time.process_time() - start)
        matched = sum(any(iou(box, frame) >= _SAME for box in found) for frame in scene.frames)
        hits, faces, extra = hits + matched, faces + len(scene.frames), extra + max(len(found) - matched, 0)
    recall = None
    if faces:
        interval = binomtest(hits, faces).proportion_ci(method="wilson")
        recall = Estimate(hits / faces, float(interval.low), float(interval.high), faces)
    return Row(recall, extra / len(scenes), 1000 * float(np.median(times)))


def benchmark(heads: Sequence[Image.Image], scenes: int, seed: int, out: Path) -> dict[str, Row]:
    """Measures every condition; writes `detection.json` and `detection.png` into `out`."""
    rows, examples = {}, []
    console = Console(stderr=True)
    for number, condition in track(list(enumerate(CONDITIONS)), "looking", console=console, transient=True):
        made = [compose(heads, condition, np.random.default_rng((seed, number, i))) for i in range(scenes)]
        rows[condition.name] = measure(made)
        examples.append((condition.name, made[0]))
    out.mkdir(parents=True, exist_ok=True)
    (out / "detection.json").write_text(json.dumps({name: asdict(row) for name, row in rows.items()}, indent=2))
    save(_picture(examples), out / "detection.png")
    return rows


def _background(rng: np.random.Generator) -> Image.Image:
    """Smooth texture, noise or a plain ground, and shapes on it."""
    colour = rng.integers(30, 226, 3)
    coarse = rng.normal(0, rng.choice([4, 25, 60]), (rng.choice([6, 60, 720]), rng.choice([8, 80, 960]), 3))
    texture = Image.fromarray((coarse + colour).clip(0, 255).astype(np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(texture)
    for _ in range(rng.integers(0, 30)):
        (x, y), (wide, high) = rng.integers(0, SIZE), rng.integers(5, 200, 2)
        fill = tuple(int(c) for c in rng.integers(0, 256, 3))
        area = (int(x), int(y), int(x + wide), int(y + high))
        shape = rng.integers(3)
        if shape == 2:
            draw.line(area, fill, int(rng.integers(1, 12)))
        else:
            (draw.ellipse if shape else draw.rectangle)(area, fill)
    return texture


def _paste_pieces(scene: Image.Image, head: Image.Image, rng: np.random.Generator) -> None:
    piece = int(rng.integers(12, 60))
    pixels = np.asarray(head.resize((4 * piece, 4 * piece), Image.Resampling.LANCZOS))
    pieces = pixels.reshape(4, piece, 4, piece, 3).swapaxes(1, 2).reshape(16, piece, piece, 3)
    mixed = pieces[rng.permutation(16)].reshape(4, 4, piece, piece, 3).swapaxes(1, 2)
    left, top = (int(rng.integers(0, side - 4 * piece)) for side in SIZE)
    scene.paste(Image.fromarray(mixed.reshape(pixels.shape)), (left, top))


def _picture(examples: Sequence[tuple[str, Scene]]) -> Figure:
    """A scene of each condition: frames as they are (green) and as they were found (orange)."""
    rows = -(-len(examples) // 5)
    figure, axes = plt.subplots(rows, 5, figsize=(16, 2.6 * rows), layout="constrained")
    for axis in axes.ravel():
        axis.axis("off")
    for axis, (name, scene) in zip(axes.ravel(), examples, strict=False):
        rgb: NDArray[np.uint8] = load_photo(scene.file).rgb
        axis.imshow(rgb)
        found = [box_from_detection(face.points) for face in find_faces(rgb)]
        for boxes, colour, width in ((scene.frames, "#3ddc97", 3.0), (found, "#ff8c42", 1.2)):
            for box in boxes:
                axis.add_patch(Rectangle((box.left, box.top), box.size, box.size, fill=False, color=colour, lw=width))
        axis.set(xlim=(0, rgb.shape[1]), ylim=(rgb.shape[0], 0))
        axis.set_title(name, fontsize=9)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m emotion_ai.benchmarks.detection", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/detection"), help="folder of the table and the picture")
    parser.add_argument("--faces", type=Path, help="a keypoint CSV, instead of the two portraits")
    parser.add_argument("--scenes", type=int, default=10, help="of each condition")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    heads = annotated(given.faces) if given.faces else portraits()
    rows = benchmark(heads, given.scenes, given.seed, given.out)
    table = Table(title=f"{given.scenes} scenes of {SIZE[0]}x{SIZE[1]} pixels each")
    for name in ("faces", "n", "recall", "95 % interval", "false boxes a scene", "processor ms"):
        table.add_column(name, justify="left" if name == "faces" else "right")
    for name, row in rows.items():
        r = row.recall
        found = (str(r.n), f"{r.value:.3f}", f"{r.low:.3f} to {r.high:.3f}") if r else ("", "", "")
        table.add_row(name, *found, f"{row.false_boxes:.2f}", f"{row.milliseconds:.0f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
