"""`emotion-ai export`: checkpoints to one published version of the three servables."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from emotion_ai.client.address import split_address
from emotion_ai.contract import CROP_SIZE, SERVABLES, Servable, Task
from emotion_ai.data.loaders import load
from emotion_ai.errors import ConfigError, ParityError
from emotion_ai.inference.pipeline import detect_faces
from emotion_ai.inference.verdict import VerdictRule
from emotion_ai.models.device import Placement
from emotion_ai.provenance import environment
from emotion_ai.published import MODEL_TASKS, REFERENCE_FILE, litert_file, onnx_file
from emotion_ai.terminal import Console, Progress
from emotion_ai.vision.crops import crop, resize_to_crop
from emotion_ai.vision.photo import PORTRAITS, load_photo
from emotion_ai_export.convert.frameworks import errors_in_one_line, tf
from emotion_ai_export.convert.graph import NetworkGraph, to_graph, to_onnx
from emotion_ai_export.convert.litert import litert_kinds
from emotion_ai_export.convert.litert_parity import compare_litert, litert_of, litert_record
from emotion_ai_export.convert.parity import (
    IN_PIXELS,
    Comparison,
    ParityReport,
    compare_on_device,
    compare_onnx,
    compare_saved_model,
    with_saved_model,
)
from emotion_ai_export.convert.parity_cases import ParityCase, file_cases, parity_faces, pixel_cases
from emotion_ai_export.convert.reference import version_reference, write_reference
from emotion_ai_export.convert.saved_model import save_servable
from emotion_ai_export.convert.version_files import SourceNetwork, write_version_files
from emotion_ai_export.convert.weights import compare_onnx_weights, compare_servable_weights
from emotion_ai_export.registry.publish import next_version, publisher, put_in_place, withdrawn_on_error, write_config
from emotion_ai_export.registry.rollout import load_published, server_of
from emotion_ai_export.registry.warmup import replay_warmup, write_warmup
from emotion_ai_export.serving.deployment import write_deployment
from emotion_ai_export.serving.flags import runtime_flags


@dataclass(frozen=True)
class Export:
    """A published version: its number, the folders of its models, and its parity report."""

    version: int
    paths: list[Path]
    report: ParityReport


def export(cfg: DictConfig) -> Export:
    """Publishes one version of the three servables, or nothing.

    Raises:
        CheckpointError: a checkpoint that cannot be loaded.
        ConfigError: no checkpoints, settings that contradict each other, or a device that is not here.
        ParityError: the export differs from its checkpoint; nothing was published.
        ExportError: a step of the conversion or of publishing failed; nothing incomplete is visible.
    """
    base = Path(cfg.out)
    runtime_flags(cfg.cpus)  # an error before the work, not after it
    placement = Placement.of(cfg.device)
    kinds = litert_kinds([cfg.litert] if isinstance(cfg.litert, str) else cfg.litert, "litert=")
    if cfg.server:
        split_address(str(cfg.server))
    console = Console()
    sources = {task: SourceNetwork.load(checkpoint, task) for task, checkpoint in _checkpoints(cfg).items()}
    networks = {task: source.network for task, source in sources.items()}
    faces = parity_faces(_real_faces(cfg.data.path))
    reference = version_reference(sources, faces, cfg.reference, cfg.reference_part)
    classes = networks["emotion"].spec.class_set
    rule = VerdictRule.of(sources["emotion"].record, classes)
    pixels, files = pixel_cases(networks, faces, rule), file_cases(networks, rule)
    calibration = (
        _calibration_faces(cfg.data.path) if "int8" in kinds else np.zeros((0, CROP_SIZE, CROP_SIZE), np.uint8)
    )
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    shown = Progress(*columns, console=Console(stderr=True))
    with publisher(base) as staging, errors_in_one_line(base), shown as progress:
        step = progress.add_task("")
        report = ParityReport()
        graphs: dict[Task, NetworkGraph] = {}
        weights: dict[str, dict[str, int]] = {}
        formats: dict[Task, dict[str, bytes]] = {}
        for task, network in networks.items():
            progress.update(step, description=f"{task}: PyTorch to ONNX")
            model = to_onnx(network)
            formats[task] = {onnx_file(task): model.SerializeToString()}
            report.rows += compare_onnx(task, formats[task][onnx_file(task)], pixels)
            weights[task] = compare_onnx_weights(network, model, to_onnx).as_dict()
            progress.update(step, description=f"{task}: ONNX to TensorFlow")
            graphs[task] = to_graph(model)
            for kind in kinds:
                progress.update(step, description=f"{task}: LiteRT {kind}")
                content = litert_of(graphs[task], kind, calibration)
                formats[task][litert_file(task, kind)] = content
                report.rows += compare_litert(task, kind, content, pixels)
        for servable in SERVABLES:  # one at a time: the graphs of a big network take gigabytes
            progress.update(step, description=f"{servable}: SavedModel, warm-up and parity")
            folder = staging / servable
            save_servable(graphs, servable, folder, rule, classes)
            write_warmup(folder, servable, faces["synthetic"])
            report.rows += with_saved_model(folder, partial(_proven, servable, folder, pixels + files))
        if placement.device.type != "cpu":
            report.rows += compare_on_device(networks, placement, pixels)
        console.print(parity_table(report))
        try:
            report.require()
        except ParityError as error:
            raise ParityError(f"{error}; {_first_difference(graphs)}nothing was published") from error
        for servable in SERVABLES:
            progress.update(step, description=f"{servable}: weights")
            parts = [graphs[task] for task in MODEL_TASKS[servable]]
            unchanged = compare_servable_weights(servable, staging / servable, parts)
            weights[f"SavedModel {servable}"] = {"unchanged": unchanged}
        progress.update(step, description="publishing")
        version = next_version(base)
        computed = {"computed_on": _devices(placement)}
        proof = {"version": version, "environment": environment(), **computed, "weights": weights, **report.as_dict()}
        if kinds:
            source = Path(cfg.data.path).name if cfg.data.path else "bundled portraits"
            proof["litert"] = litert_record(kinds, len(calibration), source)
        for servable in SERVABLES:
            write_reference(reference, staging / servable / REFERENCE_FILE, version)
            write_version_files(staging / servable, servable, sources, formats, proof)
        server = server_of(base, cfg.server)
        paths = put_in_place(staging, base, version)
        with withdrawn_on_error(base, version):
            config = write_config(base, cfg.target, keep_listed=server is not None)
            deployment = write_deployment(base, cfg.target, cfg.cpus)
        if server:
            progress.update(step, description=f"waiting for {server.address}")
            load_published(base, version, server)
    for path in [*paths, config, deployment[0].parent]:
        console.wrote(path, verb="published")
    return Export(version, paths, report)


def _proven(servable: Servable, folder: Path, cases: list[ParityCase], model: Any) -> list[Comparison]:
    rows = compare_saved_model(servable, cases, model)
    replay_warmup(folder, model)
    return rows


def _first_difference(graphs: dict[Task, NetworkGraph]) -> str:
    found = {task: graph.translator.first_difference() for task, graph in graphs.items()}
    return "".join(f"{task}: {difference}; " for task, difference in found.items() if difference)


def parity_table(report: ParityReport) -> Table:
    """The report's summary as a table."""
    table = Table(title="Largest difference to the checkpoint in float64")
    for name in ("path", "servable", "output"):
        table.add_column(name)
    for name in ("difference", "tolerance", "same decisions", "kB"):
        table.add_column(name, justify="right")
    for row in report.summary():
        unit = "px" if row.output in IN_PIXELS else ""
        table.add_row(
            *(row.path, row.servable, row.output),
            Text.assemble((f"{row.difference:.1e}", "green" if row.passes else "bold red"), f" {unit}"),
            f"{row.tolerance:.1e} {unit}",
            "" if row.agreement is None else f"{row.agreement:.2%}",
            "" if row.size is None else f"{row.size / 1000:,.0f}",
        )
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
        raise ConfigError("both networks are needed: give checkpoint=bundled, or keypoints=FILE and emotion=FILE")
    return {"keypoints": cfg.keypoints or "bundled", "emotion": cfg.emotion or "bundled"}


def _devices(placement: Placement) -> dict[str, list[str]]:
    """Where what is compared was computed."""
    served = {device.device_type.lower() for device in tf.config.list_logical_devices()}
    return {
        "checkpoint": list(dict.fromkeys(("cpu", placement.name))),
        "ONNX Runtime": ["cpu"],
        "SavedModel": ["gpu" if "gpu" in served else "cpu"],
    }


def _real_faces(data: str | None) -> NDArray[np.uint8]:
    """Crops of the public-domain portraits at several shifts, and of a dataset if one is given."""
    faces = [np.roll(face, shift, (0, 1)) for face in _portraits() for shift in ((0, 0), (4, 0), (0, -4), (-3, 5))]
    return np.stack(faces + ([] if data is None else _spread(data, 64)))


def _calibration_faces(data: str | None) -> NDArray[np.uint8]:
    """Faces from which int8 takes its ranges, uint8 (N, 96, 96): of a dataset, or the public-domain portraits.

    Of a dataset with parts, from Training. Each as it is, mirrored, darker, brighter, and with less contrast.
    """
    faces = np.stack(_portraits() if data is None else _spread(data, 64)).astype(np.float32)
    lit = (faces, faces[:, :, ::-1], faces * 0.5, faces * 1.4, faces * 0.5 + 80)
    return np.rint(np.clip(np.concatenate(lit), 0, 255)).astype(np.uint8)


def _portraits() -> list[NDArray[np.uint8]]:
    photos = [load_photo(path) for path in PORTRAITS]
    crops = [crop(photo.gray, face.box) for photo in photos for face in detect_faces(photo)]
    return [np.rint(resize_to_crop(image)).astype(np.uint8) for image in crops]


def _spread(data: str, count: int) -> list[NDArray[np.uint8]]:
    """Crops of a dataset, evenly spread over it, or over its Training part."""
    faces = load(data)
    training = faces.part == "Training"
    images = (faces[training] if training.any() else faces).images
    rows = np.unique(np.linspace(0, len(images) - 1, count).astype(int))
    return [np.rint(resize_to_crop(images[row])).astype(np.uint8) for row in rows]
