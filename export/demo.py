"""`emotion-ai demo`: train on synthetic faces, publish, serve, and predict on two portraits."""

import shutil
from pathlib import Path

from hydra import compose, initialize_config_module
from PIL import Image, ImageDraw, ImageFont
from rich.box import SIMPLE_HEAD
from rich.table import Table

from emotion_ai.client import FaceClient
from emotion_ai.contract import TASKS, Task
from emotion_ai.inference.drawing import annotate
from emotion_ai.inference.results import FaceReading
from emotion_ai.terminal import Console
from emotion_ai.training.train import train
from emotion_ai.vision.photo import PORTRAITS, load_photo
from emotion_ai_export.convert.stage import export
from emotion_ai_export.serving.launch import running

_FAST = ["data.count=200", "epochs=1"]
_WEIGHTS = {1: "trained on synthetic faces", 2: "bundled weights"}
_WIDTH, _HEIGHT = 720, 800  # of a portrait in the sheet

Readings = dict[int, dict[Path, FaceReading]]
"""The face of every portrait, by version."""


def demo(out: Path, fast: bool = False) -> Path:
    """Runs every step and writes `demo.png`, the runs and the models to `out`; nothing keeps running.

    Args:
        out: its runs and models are replaced.
        fast: trains for a few seconds, only to try every step.

    Raises:
        EmotionAIError: a step failed.
    """
    console = Console()
    for earlier in (out / "runs", out / "models"):
        shutil.rmtree(earlier, ignore_errors=True)
    checkpoints = {task: _train(task, out / "runs" / task, fast, console) for task in TASKS}
    models = out / "models"
    for title, choice in (
        ("Publish them as version 1", [f"{task}={path}" for task, path in checkpoints.items()]),
        ("Publish the bundled weights as version 2", ["checkpoint=bundled"]),
    ):
        console.rule(title)
        with initialize_config_module("emotion_ai_conf", version_base="1.3"):
            export(compose("export", [f"out={models}", *choice]))
    console.rule("Serve both versions and predict on two portraits")
    with running(models) as server:
        console.print(f"the embedded server, a stand-in for TensorFlow Serving, listens on {server.rest}")
        readings = {version: _read_portraits(server.rest, version) for version in _WEIGHTS}
    console.print(_readings_table(readings))
    picture = out / "demo.png"
    _compose(readings).save(picture)
    console.wrote(picture)
    return picture


def _train(task: Task, run: Path, fast: bool, console: Console) -> Path:
    console.rule(f"Train {task} on synthetic faces")
    overrides = [f"experiment=demo_{task}", f"out={run}", *(_FAST if fast else [])]
    with initialize_config_module("emotion_ai_conf", version_base="1.3"):
        metrics = train(compose("train", overrides))
    shown = ", ".join(f"{name} {value:.3f}" for name, value in metrics.items() if name.startswith("test/"))
    console.print(f"on unseen synthetic faces: {shown}")
    return run / "best.ckpt"


def _read_portraits(url: str, version: int) -> dict[Path, FaceReading]:
    with FaceClient(url, version=version) as client:
        return {path: client.read(path)[0] for path in PORTRAITS}


def _readings_table(readings: Readings) -> Table:
    caption = "; ".join(f"version {version}: {weights}" for version, weights in _WEIGHTS.items())
    table = Table(title="Predictions of the two versions", caption=caption, box=SIMPLE_HEAD, padding=0)
    names = list(dict.fromkeys(name for faces in readings.values() for face in faces.values() for name in face.classes))
    for name in ("portrait", "version", "emotion", *names):
        table.add_column(name, justify="left" if name in ("portrait", "emotion") else "right", no_wrap=True)
    for path in PORTRAITS:
        for version, faces in readings.items():
            face = faces[path]
            shares = (f"{face.by_class[name]:.0%}" if name in face.classes else "" for name in names)
            table.add_row(path.stem, str(version), face.verdict, *shares)
        table.add_section()
    return table


def _compose(readings: Readings) -> Image.Image:
    """The portraits side by side, annotated by the newest version, with a line per version below."""
    newest = max(readings)
    foot = 40 + 34 * len(readings)
    sheet = Image.new("RGB", (_WIDTH * len(PORTRAITS), _HEIGHT + foot), (18, 20, 28))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(24)
    for column, path in enumerate(PORTRAITS):
        face, left = readings[newest][path], column * _WIDTH
        photo = load_photo(path).rgb
        drawn = annotate(photo, [face])
        part = drawn.crop(_around(face, drawn.width / photo.shape[1], drawn.size))
        sheet.paste(part.resize((_WIDTH, _HEIGHT), Image.Resampling.LANCZOS), (left, 0))
        for row, (version, faces) in enumerate(sorted(readings.items(), reverse=True)):
            reading = faces[path]
            text = f"version {version}, {_WEIGHTS[version]}: {reading.caption}"
            colour = (250, 250, 252) if version == newest else (150, 154, 166)
            draw.text((left + 20, _HEIGHT + 22 + 34 * row), text, colour, font)
    return sheet


def _around(face: FaceReading, scale: float, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The part of the annotated portrait around a face, up to 3.6 faces wide, with the bars below it."""
    width = min(face.box.size * 3.6 * scale, size[0], size[1] * _WIDTH / _HEIGHT)
    height = width * _HEIGHT / _WIDTH
    across, down = ((low + face.box.size * share) * scale for low, share in ((face.box.left, 0.5), (face.box.top, 0.7)))
    left, top = min(max(across - width / 2, 0), size[0] - width), min(max(down - height / 2, 0), size[1] - height)
    return round(left), round(top), round(left + width), round(top + height)
