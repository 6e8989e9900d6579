"""The export stage: a plain function of a config."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig
from PIL import Image
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from emotion_ai.contract import CROP_SIZE, SERVABLES, Task
from emotion_ai.data.loaders import load
from emotion_ai.errors import ConfigError
from emotion_ai.inference.pipeline import detect_faces
from emotion_ai.models import LoadedNetwork, load_network, save_network
from emotion_ai.models.checkpoint import bundled, contract_record
from emotion_ai.provenance import environment
from emotion_ai.vision.crops import crop, resize_to_crop
from emotion_ai.vision.photo import PORTRAITS, load_photo
from emotion_ai_export.convert.frameworks import tf
from emotion_ai_export.convert.graph import to_graph, to_onnx
from emotion_ai_export.convert.parity import (
    ParityReport,
    ask_saved_models,
    check_asked,
    check_onnx,
    parity_faces,
    same_files,
    same_pixels,
)
from emotion_ai_export.convert.saved_model import save_servable
from emotion_ai_export.registry.publish import (
    PARTS,
    next_version,
    publisher,
    put_in_place,
    write_checksums,
    write_config,
)
from emotion_ai_export.registry.warmup import replay_warmup, write_warmup
from emotion_ai_export.serving.deployment import write_deployment


@dataclass(frozen=True)
class Export:
    """What was published."""

    version: int
    paths: list[Path]
    report: ParityReport


def export(cfg: DictConfig) -> Export:
    """Publishes one version of the three servables, or nothing.

    Raises:
        CheckpointError: a checkpoint that cannot be used.
        ConfigError: no checkpoints, or settings that contradict each other.
        ParityError: an export that differs from its checkpoint; nothing was published.
        ExportError: a step of the conversion or the publishing failed; nothing half-written is visible.
    """
    base = Path(cfg.out)
    console = Console()
    loaded = {task: load_network(checkpoint, task) for task, checkpoint in _checkpoints(cfg).items()}
    networks = {task: network for task, (network, _) in loaded.items()}
    faces = parity_faces(_real_faces(cfg.data))
    pixels, files = same_pixels(networks, faces), same_files(networks)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with publisher(base) as staging, Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        step = progress.add_task("")
        report = ParityReport()
        graphs = {}
        for task, network in networks.items():
            progress.update(step, description=f"{task}: PyTorch to ONNX")
            model = to_onnx(network)
            report.rows += check_onnx(task, model, pixels)
            progress.update(step, description=f"{task}: ONNX to TensorFlow")
            graphs[task] = to_graph(model)
        models = {}
        for servable in SERVABLES:
            progress.update(step, description=f"{servable}: SavedModel and warm-up")
            save_servable(graphs, servable, staging / servable)
            write_warmup(staging / servable, servable, faces["synthetic"])
            models[servable] = tf.saved_model.load(str(staging / servable))
            replay_warmup(staging / servable, models[servable])
        progress.update(step, description="parity of every signature, batch size and kind of face")
        ask = ask_saved_models(models)
        report.rows += check_asked("SavedModel", SERVABLES, ask, pixels + files)
        console.print(parity_table(report))
        report.require()
        progress.update(step, description="publishing")
        version = next_version(base)
        for servable in SERVABLES:
            _extras(staging / servable, servable, loaded, _checkpoints(cfg), report, version)
        paths = put_in_place(staging, base, version)
        config = write_config(base, cfg.target)
        deployment = write_deployment(base, cfg.target)
    for path in [*paths, config, deployment[0].parent]:
        console.print(f"[green]published[/] {path}", soft_wrap=True, highlight=False)
    return Export(version, paths, report)


def parity_table(report: ParityReport) -> Table:
    """The report's summary as people read it."""
    table = Table(title="Largest difference to PyTorch")
    for name in ("path", "servable", "output"):
        table.add_column(name)
    for name in ("difference", "allowed"):
        table.add_column(name, justify="right")
    for path, servable, output, difference, tolerance in report.summary():
        unit = "" if output == "probabilities" else "px"
        colour = "green" if difference <= tolerance else "bold red"
        table.add_row(path, servable, output, f"[{colour}]{difference:.1e}[/] {unit}", f"{tolerance:.0e} {unit}")
    return table


def _checkpoints(cfg: DictConfig) -> dict[Task, str]:
    if cfg.checkpoint is not None and (cfg.keypoints is not None or cfg.emotion is not None):
        raise ConfigError(
            "checkpoint= and keypoints=/emotion= contradict each other; give checkpoint=bundled or both files"
        )
    if cfg.checkpoint is not None and cfg.checkpoint != "bundled":
        raise ConfigError(
            f"checkpoint={cfg.checkpoint}: only 'bundled' holds both networks; give keypoints= and emotion="
        )
    if cfg.checkpoint is None and (cfg.keypoints is None or cfg.emotion is None):
        raise ConfigError("both networks are wanted: give checkpoint=bundled, or keypoints=FILE and emotion=FILE")
    return {"keypoints": cfg.keypoints or "bundled", "emotion": cfg.emotion or "bundled"}


def _real_faces(data: str | None) -> NDArray[np.uint8]:
    """Crops of the public-domain portraits at several shifts, and of a dataset where one is given."""
    faces = []
    for path in PORTRAITS:
        photo = load_photo(path)
        for face in detect_faces(photo):
            pixels = np.rint(resize_to_crop(crop(photo.gray, face.box))).astype(np.uint8)
            faces += [np.roll(pixels, shift, (0, 1)) for shift in ((0, 0), (4, 0), (0, -4), (-3, 5))]
    if data is not None:
        images = load(data).images[:64]
        faces += [np.asarray(Image.fromarray(image).resize((CROP_SIZE, CROP_SIZE))) for image in images]
    return np.stack(faces)


def _extras(
    folder: Path,
    servable: str,
    loaded: dict[Task, LoadedNetwork],
    checkpoints: dict[Task, str],
    report: ParityReport,
    version: int,
) -> None:
    """`assets.extra`: the checkpoint, the proof, the model card, the contract and the checksums."""
    extra = folder / "assets.extra"
    parts = PARTS[servable]
    cards = []
    for task in parts:
        network, record = loaded[task]
        save_network(network, extra / f"{task}.safetensors", record)
        cards.append(_card(task, checkpoints[task], record))
    (extra / "MODEL_CARD.md").write_text("\n\n".join(cards))
    (extra / "contract.json").write_text(json.dumps(contract_record(), indent=2))
    proof = {"version": version, "environment": environment(), **report.as_dict()}
    (extra / "parity.json").write_text(json.dumps(proof, indent=1))
    write_checksums(folder)


def _card(task: Task, checkpoint: str, record: dict[str, Any]) -> str:
    path = bundled(task) if checkpoint == "bundled" else Path(checkpoint)
    for card in (path.with_suffix(".md"), path.with_name("MODEL_CARD.md")):
        if card.is_file():
            return card.read_text()
    metrics = "\n".join(f"- {name}: {value:.4f}" for name, value in record.get("metrics", {}).items())
    trained = json.dumps(record.get("data", {}), indent=2)
    return f"# {task}\n\nNo model card lies beside the checkpoint.\n\n{metrics}\n\nData:\n\n```json\n{trained}\n```\n"
