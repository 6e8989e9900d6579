"""The evaluation stage: a plain function of a config."""

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from emotion_ai.contract import EMOTIONS
from emotion_ai.data.dataset import FaceDataset
from emotion_ai.data.duplicates import seen_in
from emotion_ai.data.loaders import load
from emotion_ai.data.splits import SYNTHETIC
from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.errors import ConfigError, DataError
from emotion_ai.evaluation import plots as pictures
from emotion_ai.evaluation.abstention import as_rows, risk_coverage
from emotion_ai.evaluation.card import model_card
from emotion_ai.evaluation.coverage import Coverage
from emotion_ai.evaluation.explain import activation_maps
from emotion_ai.evaluation.metrics import EmotionScores, KeypointErrors
from emotion_ai.evaluation.predictions import predict, predict_uncertainty
from emotion_ai.evaluation.report import write_report
from emotion_ai.evaluation.robustness import AS_IT_IS, robustness
from emotion_ai.evaluation.statistics import Estimate, PairedTest, mcnemar, paired_rmse
from emotion_ai.evaluation.summary import summary_metrics
from emotion_ai.files import write_json
from emotion_ai.models import load_network

_SHOWN = 24  # faces in a grid
_FEW = 6  # faces in a row, with their explanation


def evaluate(cfg: DictConfig) -> dict[str, float]:
    """Judges a checkpoint; writes `report.html`, `report.json` and `predictions.npz` into `cfg.out`.

    Returns:
        The headline figures.

    Raises:
        CheckpointError: a checkpoint that cannot be used.
        DataError: a dataset that cannot be used, or without annotations.
        ConfigError: settings that do not fit together.
    """
    if cfg.card is not None and (Path(cfg.card).is_dir() or not Path(cfg.card).parent.is_dir()):
        raise ConfigError(f"card={cfg.card}: is a folder, or in a folder that does not exist; give a file")
    network, record = load_network(cfg.checkpoint, cfg.task.name)
    faces, twins = _faces(cfg)
    removed = 0
    if cfg.data.without_duplicates:
        faces, twins, removed = faces[~twins], twins[~twins], int(twins.sum())
    answers = predict(network, faces.images, cfg.flip)
    heads = summary_metrics(cfg.task.name, answers, faces.targets, cfg.seed)
    judged = (
        _keypoints(answers, faces, cfg.seed) if cfg.task.name == "keypoints" else _emotion(answers, faces, cfg.seed)
    )
    tables, figures = judged
    if twins.any():
        rest = summary_metrics(cfg.task.name, answers[~twins], faces.targets[~twins], cfg.seed)
        tables = {f"Without the {twins.sum()} faces that have a twin in Training": _texts(rest), **tables}
    if cfg.task.name == "keypoints":
        points, deviations = predict_uncertainty(network, faces.images)
        coverage = Coverage(KeypointErrors.of(points, faces.targets).offsets, deviations)  # type: ignore[arg-type]
        tables["Deviations: share of the truth within the region meant to hold it"] = _texts(coverage.shares(cfg.seed))
        figures["Deviations"] = pictures.coverage_curve(coverage.curves())
        known = np.flatnonzero(~np.isnan(faces.targets).any((1, 2)))
        order = known[np.argsort(deviations[known].mean((1, 2)), kind="stable")]
        rows = np.concatenate([order[:_FEW], order[::-1][:_FEW]])
        figures["Where the points may lie"] = pictures.deviations_grid(
            faces.images[rows], points[rows], deviations[rows], faces.targets[rows]
        )
    else:
        kept = risk_coverage(answers, faces.targets)  # type: ignore[arg-type]
        chosen = record.get("calibration", {}).get("uncertain_below")
        tables["Abstention: from this confidence on, share of the faces kept, accuracy"] = as_rows(kept, chosen)
        figures["Abstention"] = pictures.risk_coverage(kept, chosen)
        rows = _examples(answers.argmax(1), faces.targets, cfg.seed)  # type: ignore[arg-type]
        maps = activation_maps(network, faces.images[rows])
        shown = EmotionScores(answers[rows], faces.targets[rows])  # type: ignore[arg-type]
        figures["Where the network looked"] = pictures.attention_grid(faces.images[rows], maps, shown, _FEW)
    if cfg.against is not None:
        other = predict(load_network(cfg.against, cfg.task.name)[0], faces.images, cfg.flip)
        test = _paired(cfg.task.name, answers, other, faces, cfg.seed)
        p = "" if test.p is None else f", exact McNemar p = {test.p:.3g}"
        tables[f"Against {Path(cfg.against).name}"] = {f"{test.name}, difference": f"{test.difference}{p}"}
    if cfg.robustness:
        changed = robustness(network, faces)
        unit = "RMSE in pixels" if cfg.task.name == "keypoints" else "accuracy"
        tables[f"Robustness: {unit}, and the difference to the faces as they are"] = {
            name: f"{value:.4f} ({value - changed[AS_IT_IS]:+.4f})" for name, value in changed.items()
        }
    out = Path(cfg.out)
    out.mkdir(parents=True, exist_ok=True)
    part = f", {cfg.data.part}" if cfg.data.part else ""
    report: dict[str, Any] = {
        "task": cfg.task.name,
        "checkpoint": Path(cfg.checkpoint).name,
        "data": {"source": Path(faces.source).name, "part": cfg.data.part, "fingerprint": faces.fingerprint},
        "faces": len(faces),
        "seen": _seen(faces.fingerprint, cfg.data.part, record),
        "training_twins": int(twins.sum()),
        "training_twins_removed": removed,
        "flip": cfg.flip,
        "seed": cfg.seed,
        "headlines": {name: asdict(estimate) for name, estimate in heads.items()},
        "tables": tables,
        "command": _command(cfg),
    }
    write_json(out / "report.json", report)
    np.savez(out / "predictions.npz", answers=answers, targets=faces.targets)
    write_report(
        out / "report.html",
        f"{cfg.task.name}: {Path(cfg.checkpoint).name}",
        f"{len(faces)} faces of {Path(faces.source).name}{part}, {report['seen']}; intervals are bootstrap 95 %",
        {name: str(estimate) for name, estimate in heads.items()},
        tables,
        figures,
        report["command"],
        json.dumps(record, indent=2),
    )
    if cfg.card is not None:
        Path(cfg.card).write_text(model_card(report, record))
    _show(cfg, f"{len(faces)} faces, {report['seen']}", heads, tables, out)
    return {name: estimate.value for name, estimate in heads.items()}


Judged = tuple[dict[str, dict[str, Any]], dict[str, Figure]]


def _texts(estimates: dict[str, Estimate]) -> dict[str, str]:
    return {name: str(estimate) for name, estimate in estimates.items()}


def _faces(cfg: DictConfig) -> tuple[FaceDataset, NDArray[np.bool_]]:
    """The faces to judge, and which of them have the pixels of a face in the same source's Training part."""
    if cfg.data.path == SYNTHETIC:
        faces = synthetic_faces(500, cfg.seed).faces(cfg.task.name)
    else:
        faces = load(cfg.data.path, cfg.task.name, cfg.data.labels)
    training = faces.images[faces.part == "Training"]
    if cfg.data.part is not None:
        here = ", ".join(sorted(set(faces.part) - {""})) or "no parts"
        faces = faces[faces.part == cfg.data.part]
        if len(faces) == 0:
            raise ConfigError(f"data.part={cfg.data.part}: no such faces in {cfg.data.path}, which has {here}")
    if cfg.data.without_duplicates and cfg.data.part in (None, "Training"):
        raise ConfigError("data.without_duplicates=true compares a part with Training; give data.part=PublicTest")
    if cfg.task.name == "keypoints":
        known = np.flatnonzero(~np.isnan(faces.targets).all((1, 2)))
        if len(known) == 0:
            raise DataError(f"{cfg.data.path}: has no annotated points; a test.csv can be predicted, not judged")
        faces = faces[known]
    apart = cfg.data.part not in (None, "Training")
    return faces, seen_in(faces.images, training) if apart else np.zeros(len(faces), bool)


def _seen(fingerprint: str, part: str | None, record: dict[str, Any]) -> str:
    """Whether the network may have learnt from the faces that it is judged on, by its training record."""
    data = record.get("data")
    if data is None:
        return "of which the checkpoint does not say whether it was trained on them"
    apart = data["how"].startswith("Usage") and part in ("PublicTest", "PrivateTest")
    if apart or fingerprint != data["train"]["fingerprint"]:
        return "never trained or chosen on"
    return "among which are faces that it was trained on"


def _keypoints(answers: NDArray[np.float32], faces: FaceDataset, seed: int) -> Judged:
    truth: NDArray[np.float32] = faces.targets  # type: ignore[assignment]
    errors = KeypointErrors.of(answers, truth)
    mean = np.nansum(truth, 0) / np.maximum((~np.isnan(truth)).sum(0), 1)
    constant = KeypointErrors.of(np.broadcast_to(mean, truth.shape), truth)
    tables: dict[str, dict[str, Any]] = {
        "In pixels of the 96×96 frame": {
            "RMSE": errors.rmse,
            "RMSE of the best constant answer, the mean of these faces": constant.rmse,
            "RMSE without each face's mean shift": errors.without_shift,
            "median distance": float(np.median(errors.distances)),
            "95th percentile of the distance": float(np.percentile(errors.distances, 95)),
        },
        "RMSE of each point": errors.per_point,
    }
    worst = np.argsort(-errors.distances)[:_SHOWN]
    typical = np.random.default_rng(seed).permutation(len(faces))[:_SHOWN]
    figures = {
        "Cumulative error": pictures.cumulative_error(errors, constant),
        "Each point": pictures.point_errors(errors),
    }
    for name, rows in (("Typical faces", typical), ("Worst faces", worst)):
        chosen = KeypointErrors(errors.offsets[rows])
        figures[name] = pictures.points_grid(faces.images[rows], answers[rows], truth[rows], chosen, name)
    return tables, figures


def _emotion(answers: NDArray[np.float32], faces: FaceDataset, seed: int) -> Judged:
    labels: NDArray[np.int64] = faces.targets  # type: ignore[assignment]
    scores = EmotionScores(answers, labels)
    correct = scores.correct
    tables: dict[str, dict[str, Any]] = {
        "Overall": {
            "accuracy": scores.accuracy,
            "misclassification rate": 1 - scores.accuracy,
            "balanced accuracy": scores.balanced_accuracy,
            "macro F1": scores.macro_f1,
            "calibration error": scores.calibration_error,
        },
        "Each class: precision, recall, F1, faces": {
            name: f"{c['precision']:.3f}   {c['recall']:.3f}   {c['f1']:.3f}   {int(c['faces'])}"
            for name, c in scores.per_class.items()
        },
    }
    figures = {
        "Confusion": pictures.confusion(scores),
        "Classes": pictures.class_scores(scores),
        "Reliability": pictures.reliability(scores),
    }
    order = np.random.default_rng(seed).permutation(len(faces))
    wrong = order[~correct[order]]
    surest = wrong[np.argsort(-answers[wrong].max(1), kind="stable")][:_SHOWN]
    for name, rows in (("Right faces", order[correct[order]][:_SHOWN]), ("Wrong faces, the surest first", surest)):
        figures[name] = pictures.faces_grid(faces.images[rows], EmotionScores(answers[rows], labels[rows]), name)
    return tables, figures


def _examples(predicted: NDArray[np.int64], labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Of each class as many rightly as wrongly read faces, by chance, as fit into a row."""
    order = np.random.default_rng(seed).permutation(len(labels))
    chosen = [
        order[(labels[order] == label) & ((predicted[order] == label) == right)][: _FEW // 2]
        for label in range(len(EMOTIONS))
        for right in (True, False)
    ]
    return np.concatenate(chosen)


def _paired(
    task: str, first: NDArray[np.float32], second: NDArray[np.float32], faces: FaceDataset, seed: int
) -> PairedTest:
    if task == "keypoints":
        errors = (KeypointErrors.of(answers, faces.targets).per_face for answers in (first, second))  # type: ignore[arg-type]
        return paired_rmse(next(errors), next(errors), seed)
    return mcnemar(first.argmax(1) == faces.targets, second.argmax(1) == faces.targets, seed)


def _command(cfg: DictConfig) -> str:
    given = {
        "task": cfg.task.name,
        "checkpoint": cfg.checkpoint,
        "data.path": Path(cfg.data.path).name,
        "data.part": cfg.data.part,
        "data.without_duplicates": cfg.data.without_duplicates or None,
        "flip": cfg.flip or None,
        "robustness": cfg.robustness or None,
        "seed": cfg.seed or None,
    }
    return "emotion-ai evaluate " + " ".join(
        shlex.quote(f"{k}={str(v).lower() if v is True else v}") for k, v in given.items() if v is not None
    )


def _show(
    cfg: DictConfig, faces: str, heads: dict[str, Estimate], tables: dict[str, dict[str, Any]], out: Path
) -> None:
    console = Console()
    table = Table(title=f"{cfg.task.name}: {Path(cfg.checkpoint).name}\n{faces}")
    for name in ("figure", "value", "95 % interval", "faces"):
        table.add_column(name, justify="left" if name == "figure" else "right")
    for name, e in heads.items():
        table.add_row(name, f"{e.value:.4f}", f"{e.low:.4f} to {e.high:.4f}", str(e.n))
    console.print(table)
    for title, rows in tables.items():
        inner = Table(title=title, show_header=False)
        for name, value in rows.items():
            inner.add_row(name, f"{value:.4f}" if isinstance(value, float) else str(value))
        console.print(inner)
    console.print(f"[green]wrote[/] {out / 'report.html'}", highlight=False, soft_wrap=True)
