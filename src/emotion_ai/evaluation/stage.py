"""The evaluation stage: a plain function of a config."""

import shlex
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from emotion_ai.contract import EMOTIONS, Task
from emotion_ai.data.dataset import FaceDataset
from emotion_ai.errors import ConfigError
from emotion_ai.evaluation import plots
from emotion_ai.evaluation.card import model_card
from emotion_ai.evaluation.emotion import evaluate_emotion
from emotion_ai.evaluation.evaluated_faces import evaluated_faces, seen_in_training
from emotion_ai.evaluation.groupings import default_groupings, read_groupings
from emotion_ai.evaluation.keypoints import evaluate_keypoints
from emotion_ai.evaluation.metrics import KeypointErrors
from emotion_ai.evaluation.outside import OutsideResults, evaluate_agreement, evaluate_outside
from emotion_ai.evaluation.predictions import predict
from emotion_ai.evaluation.report import EvaluationReport, write_page
from emotion_ai.evaluation.robustness import robustness_table
from emotion_ai.evaluation.slices import Gate, slice_metrics
from emotion_ai.evaluation.statistics import PairedTest, Units, mcnemar, paired_rmse
from emotion_ai.evaluation.summary import summary_metrics
from emotion_ai.evaluation.tables import INTERVAL, Column, Interval, ReportTable, estimate_table
from emotion_ai.evaluation.terminal import print_report
from emotion_ai.evaluation.units import AUTO, resampling_units
from emotion_ai.files import atomic_path, locked_folder, write_json, write_text
from emotion_ai.models import FaceNetwork, load_network
from emotion_ai.models.device import Placement
from emotion_ai.terminal import escaped


def evaluate(cfg: DictConfig) -> dict[str, float]:
    """Evaluates a checkpoint; writes `report.html`, `report.json` and `predictions.npz` into `cfg.out`.

    Returns:
        The summary metrics.

    Raises:
        CheckpointError: a checkpoint that cannot be used.
        DataError: a dataset that cannot be used, or without annotations.
        ConfigError: settings that do not fit together, a device that is not here, or an output folder that is in use.
        WorstGroupError: a group of faces is worse than `gate.worst_group`; the files are written.
    """
    if cfg.card is not None and (Path(cfg.card).is_dir() or not Path(cfg.card).parent.is_dir()):
        raise ConfigError(f"card={cfg.card}: is a folder, or in a folder that does not exist; give a file")
    with locked_folder(Path(cfg.out)):
        return _evaluate(cfg)


def _evaluate(cfg: DictConfig) -> dict[str, float]:
    task: Task = cfg.task.name
    placement = Placement.of(cfg.device, cfg.precision)
    loaded = network, record = load_network(cfg.checkpoint, task)
    placement.place(network)
    chosen = evaluated_faces(cfg, network.spec.class_set)
    faces, duplicates = chosen.faces, chosen.duplicates
    units = resampling_units(cfg.data.people, chosen.rows, faces.images)
    groupings = default_groupings(faces) if cfg.slices is None else read_groupings(Path(cfg.slices), chosen.rows)
    emotions = network.spec.class_set.emotions
    if task == "emotion":
        groupings = [grouping.within(faces.labels < emotions) for grouping in groupings]
    gate = Gate.of(cfg.gate, task, groupings)
    if task == "keypoints":
        results = evaluate_keypoints(network, faces, cfg.flip, cfg.seed, units)
    else:
        threshold = record.calibration.get("uncertain_below")
        results = evaluate_emotion(network, faces, cfg.flip, cfg.seed, threshold)
    predictions, tables = results.predictions, list(results.tables)
    if duplicates.any():
        title = f"Without the {duplicates.sum()} faces that have duplicates in Training"
        others = (predictions[~duplicates], faces.targets[~duplicates], cfg.seed, units[~duplicates])
        tables.insert(0, estimate_table(title, summary_metrics(network.spec, *others)))
    if cfg.against is not None:
        other = placement.place(load_network(cfg.against, task).network)
        rows = _comparable(network, other, faces, cfg.against)
        compared = (predictions[rows], predict(other, faces.images[rows], cfg.flip), faces[rows], cfg.seed, units[rows])
        tables.append(_paired_table(Path(cfg.against).name, paired_test(*compared)))
    figures, slices = dict(results.figures), None
    outside = OutsideResults({}, [], {})
    if task == "emotion" and network.spec.class_set.names[: len(EMOTIONS)] == EMOTIONS:
        outside = evaluate_outside(loaded, chosen, predictions, cfg.flip, cfg.data.people, cfg.seed)
        tables += outside.tables
        figures |= outside.figures
        if faces.votes is not None:
            tables.append(evaluate_agreement(chosen, predictions, len(EMOTIONS), units, cfg.seed))
    if groupings:
        slices = slice_metrics(
            task,
            predictions[:, :emotions] if task == "emotion" else predictions,
            faces.targets,
            groupings,
            units,
            cfg.seed,
            gate,
        )
        tables += slices.tables()
        figures["Slices"] = plots.slices_forest(slices)
    if cfg.robustness:
        tables.append(robustness_table(network, faces))
    report = EvaluationReport(
        task=task,
        checkpoint=Path(cfg.checkpoint).name,
        source=Path(faces.source).name,
        part=cfg.data.part,
        fingerprint=faces.fingerprint,
        faces=len(faces),
        seen=seen_in_training(faces.fingerprint, cfg.data.part, record),
        training_duplicates=int(duplicates.sum()),
        training_duplicates_removed=chosen.removed,
        flip=cfg.flip,
        seed=cfg.seed,
        device=placement.name,
        precision=placement.precision,
        resampled=units.name,
        resampled_units=units.count,
        summary=summary_metrics(network.spec, predictions, faces.targets, cfg.seed, units) | outside.summary,
        tables=tuple(tables),
        command=_command(cfg),
    )
    written = [Path(cfg.out) / name for name in ("predictions.npz", "report.json", "report.html")]
    if cfg.card is not None:
        written.insert(0, Path(cfg.card))
    with ExitStack() as stack:  # all files are of this evaluation, or none
        *card, arrays, values, page = (stack.enter_context(atomic_path(path)) for path in written)
        with arrays.open("wb") as stream:
            np.savez(stream, predictions=predictions, targets=faces.targets)
        write_json(values, report.as_dict())
        write_page(page, report, figures, record.as_dict())
        for path in card:
            write_text(path, escaped(model_card(report, record, network.spec.class_set)))
    print_report(report, written)
    if slices is not None:
        slices.check()
    return {name: estimate.value for name, estimate in report.summary.items()}


def _comparable(network: FaceNetwork, other: FaceNetwork, faces: FaceDataset, against: str) -> NDArray[np.bool_]:
    """The faces whose classes both networks know.

    Raises:
        ConfigError: the networks number their classes in different ways.
    """
    if faces.task == "keypoints" or network.spec.classes == other.spec.classes:
        return np.ones(len(faces), bool)
    both = [mine for mine, its in zip(*(n.spec.class_set.names for n in (network, other)), strict=False) if mine == its]
    if len(both) < min(len(n.spec.class_set) for n in (network, other)):
        raise ConfigError(f"against={against}: has other classes ({', '.join(other.spec.class_set.names)})")
    return faces.labels < len(both)


def paired_test(
    first: NDArray[np.float32], second: NDArray[np.float32], faces: FaceDataset, seed: int, units: Units | None = None
) -> PairedTest:
    """Compares two networks' predictions for the same faces."""
    if faces.task == "keypoints":
        errors = [KeypointErrors.of(predictions, faces.points).per_face for predictions in (first, second)]
        return paired_rmse(errors[0], errors[1], seed, units)
    count = min(first.shape[1], second.shape[1])  # of the classes that both know
    right = [predictions[:, :count].argmax(1) == faces.labels for predictions in (first, second)]
    return mcnemar(right[0], right[1], seed, units)


def _paired_table(other: str, test: PairedTest) -> ReportTable:
    e = test.difference
    columns = (Column("metric"), Column("difference"), INTERVAL, Column("exact McNemar p", ".3g"))
    row = (test.name, e.value, Interval(e.low, e.high), test.p)
    width = 3 if test.p is None else 4
    return ReportTable(f"Difference to {other}", columns[:width], (row[:width],))


def _command(cfg: DictConfig) -> str:
    given = {
        "task": cfg.task.name,
        "checkpoint": cfg.checkpoint,
        "data.path": Path(cfg.data.path).name,
        "data.part": cfg.data.part,
        "data.people": None if cfg.data.people == AUTO else Path(cfg.data.people).name,
        "data.vote_file": None if cfg.data.vote_file is None else Path(cfg.data.vote_file).name,
        "data.without_duplicates": cfg.data.without_duplicates or None,
        "flip": cfg.flip or None,
        "slices": None if cfg.slices is None else Path(cfg.slices).name,
        "gate.worst_group": cfg.gate.worst_group,
        "gate.by": cfg.gate.by,
        "gate.min_faces": None if cfg.gate.min_faces == 1 else cfg.gate.min_faces,
        "robustness": cfg.robustness or None,
        "seed": cfg.seed or None,
        "device": None if cfg.device == "auto" else cfg.device,
        "precision": None if cfg.precision == "fp32" else cfg.precision,
    }
    return "emotion-ai evaluate " + " ".join(
        shlex.quote(f"{k}={str(v).lower() if v is True else v}") for k, v in given.items() if v is not None
    )
