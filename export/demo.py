"""The whole road on what the package carries: train on synthetic faces, publish, serve, ask about two portraits."""

import shutil
from pathlib import Path

from hydra import compose, initialize_config_module
from PIL import Image, ImageDraw, ImageFont
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from emotion_ai.client import FaceClient
from emotion_ai.contract import EMOTIONS, TASKS
from emotion_ai.inference.drawing import annotate
from emotion_ai.inference.results import FaceReading
from emotion_ai.training.train import train
from emotion_ai.vision.photo import PORTRAITS, load_photo
from emotion_ai_export.convert.stage import export
from emotion_ai_export.serving.launch import running

_FAST = ["data.count=200", "epochs=1"]
_WHO = {1: "trained on synthetic faces just now", 2: "bundled weights"}
_SIDE = 720  # pixels of one portrait in demo.png


def demo(out: Path, fast: bool = False) -> Path:
    """Runs the road and leaves `demo.png`, the runs and the models in `out`; nothing keeps running.

    Args:
        out: runs and models of an earlier demo in it are replaced.
        fast: trains for seconds only, which proves the road and teaches the networks little.

    Raises:
        EmotionAIError: the step that failed says what and why.
    """
    console = Console()
    for earlier in (out / "runs", out / "models"):
        shutil.rmtree(earlier, ignore_errors=True)
    checkpoints = {}
    for task in TASKS:
        console.rule(f"Train {task} on synthetic faces")
        run = out / "runs" / task
        overrides = [f"experiment=demo_{task}", f"out={run}", *(_FAST if fast else [])]
        with initialize_config_module("emotion_ai_conf", version_base="1.3"):
            metrics = train(compose("train", overrides))
        shown = ", ".join(f"{name} {value:.3f}" for name, value in metrics.items() if name.startswith("test/"))
        console.print(f"on synthetic faces it has not seen: {shown}")
        checkpoints[task] = run / "best.ckpt"
    models = out / "models"
    for title, choice in (
        ("Publish them as version 1", [f"{task}={path}" for task, path in checkpoints.items()]),
        ("Publish the bundled weights as version 2", ["checkpoint=bundled"]),
    ):
        console.rule(title)
        with initialize_config_module("emotion_ai_conf", version_base="1.3"):
            export(compose("export", [f"out={models}", *choice]))
    console.rule("Serve both, and ask about two portraits")
    with running(models) as server:
        console.print(f"the embedded server, a stand-in for TensorFlow Serving, answers at {server.rest}")
        answers = {version: _ask(server.rest, version) for version in _WHO}
    console.print(_table(answers))
    picture = out / "demo.png"
    _compose(answers).save(picture)
    console.print(f"[green]wrote[/] {picture}", highlight=False)
    return picture


def _ask(url: str, version: int) -> dict[Path, FaceReading]:
    with FaceClient(url, version=version) as client:
        return {path: client.read(path)[0] for path in PORTRAITS}


def _table(answers: dict[int, dict[Path, FaceReading]]) -> Table:
    said = "; ".join(f"version {version}: {who}" for version, who in _WHO.items())
    table = Table(title="What the two versions say", caption=said, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("portrait", "version", "emotion", *EMOTIONS):
        table.add_column(name, justify="left" if name in ("portrait", "emotion") else "right", no_wrap=True)
    for path in PORTRAITS:
        for version, readings in answers.items():
            face = readings[path]
            shares = (f"{p:.0%}" for p in face.probabilities)
            table.add_row(path.stem, str(version), face.emotion, *shares)
        table.add_section()
    return table


def _compose(answers: dict[int, dict[Path, FaceReading]]) -> Image.Image:
    """The portraits side by side with the newest version's reading drawn, and a line for each version below."""
    newest = max(answers)
    foot = 40 + 34 * len(answers)
    sheet = Image.new("RGB", (_SIDE * len(PORTRAITS), _SIDE + foot), (18, 20, 28))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(24)
    for column, path in enumerate(PORTRAITS):
        face, left = answers[newest][path], column * _SIDE
        drawn = annotate(load_photo(path).rgb, [face])
        scale = drawn.width / load_photo(path).rgb.shape[1]
        sheet.paste(
            drawn.crop(_around(face, scale, drawn.size)).resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), (left, 0)
        )
        for row, (version, readings) in enumerate(sorted(answers.items(), reverse=True)):
            said = readings[path]
            words = f"version {version}, {_WHO[version]}: {said.emotion} {said.confidence:.0%}"
            colour = (250, 250, 252) if version == newest else (150, 154, 166)
            draw.text((left + 20, _SIDE + 22 + 34 * row), words, colour, font)
    return sheet


def _around(face: FaceReading, scale: float, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A square of the drawn portrait about three faces wide, inside the picture."""
    side = min(face.box.size * 3.2 * scale, *size)
    centre = [(low + face.box.size / 2) * scale for low in (face.box.left, face.box.top)]
    left, top = (min(max(c - side / 2, 0), limit - side) for c, limit in zip(centre, size, strict=True))
    return round(left), round(top), round(left + side), round(top + side)
