"""Calibration of probabilities and standard deviations on the validation split, after training.

Weights of a run are calibrated anew, for example with another bound on neutral faces, by

    python -m emotion_ai.training.calibrate run/best.ckpt fer2013.csv.xz calibrated.safetensors

and the mean of a run's weights at its best and its last epoch with `--mean run/last.ckpt`.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from emotion_ai.data.batches import Batches
from emotion_ai.data.dataset import FaceDataset
from emotion_ai.data.splits import DataConfig, build_splits
from emotion_ai.errors import CheckpointError, ConfigError
from emotion_ai.evaluation.calibration import cross_fitted_error, fit_deviation_scale, fit_temperature
from emotion_ai.evaluation.metrics import EmotionScores
from emotion_ai.evaluation.verdicts import choose_rule
from emotion_ai.models import FaceNetwork, load_network, save_network
from emotion_ai.schema import bind

_BATCH_SIZE = 256


def calibrate(
    network: FaceNetwork, val: FaceDataset, confident_accuracy: float = 0.9, neutral_risk: float = 0.1
) -> dict[str, float]:
    """Folds the temperature, or the factor of the standard deviations, into the network's weights.

    Predicted classes and points do not change.

    Args:
        network: in evaluation mode.
        val: the validation split.
        confident_accuracy: accuracy on `val` of the emotions that are named.
        neutral_risk: share of neutral faces that may be named as an emotion.

    Returns:
        The fitted numbers, for the record. For emotion also the calibration error before and after (cross-fitted: each
        face is evaluated with a temperature fitted to the others), and the rule for verdicts, as by `choose_rule`.
        Where there are more classes than the five emotions, the probabilities of these alone have a temperature of
        their own, `emotion_temperature`.
    """
    batches = Batches(val, _BATCH_SIZE, next(network.parameters()).device, lambda: 0)
    if network.task == "keypoints":
        with torch.inference_mode():
            outputs = [network.uncertainty(images) for images, _, _ in batches]
        points, deviations = (torch.cat(part).cpu().numpy() for part in zip(*outputs, strict=True))
        factor = fit_deviation_scale(points - val.targets, deviations)
        network.deviations.scale(factor)
        return {"deviation_scale": factor}
    with torch.inference_mode():
        logits = torch.cat([network.scores(images) for images, _, _ in batches]).cpu().numpy()
    labels = val.targets.astype(np.int64)
    temperature = fit_temperature(logits, labels)
    network.head.apply_temperature(temperature)  # type: ignore[operator]
    probabilities, before = (torch.from_numpy(logits / t).softmax(1).numpy() for t in (temperature, 1.0))
    fitted = {
        "temperature": temperature,
        "calibration_error_before": EmotionScores(before, labels).calibration_error,
        "calibration_error_cross_fitted": cross_fitted_error(logits, labels),
    }
    classes = network.spec.class_set
    rows = labels < classes.emotions
    if classes.emotions < len(classes) and rows.any():
        emotions = logits[rows, : classes.emotions] / temperature
        network.calibrate_emotions(fit_temperature(emotions, labels[rows]))
        fitted |= {
            "emotion_temperature": network.spec.emotion_temperature,
            "emotion_calibration_error_cross_fitted": cross_fitted_error(emotions, labels[rows]),
        }
    return fitted | choose_rule(probabilities, labels, classes, confident_accuracy, neutral_risk)


def average(network: FaceNetwork, others: Sequence[Path]) -> None:
    """Replaces the weights by the mean over the network and others (Izmailov et al. 2018, arXiv:1803.05407).

    Statistics of the normalisation layers are averaged, too, rather than estimated anew: the weights are of one run.

    Args:
        network: whose weights are replaced.
        others: checkpoints of the same run, or of runs that began with the same weights.

    Raises:
        CheckpointError: a checkpoint cannot be loaded, or holds another network.
    """
    states = [network.state_dict()]
    for path in others:
        other = load_network(path, network.task).network
        if other.spec != network.spec:
            raise CheckpointError(f"{path}: holds another network than the first checkpoint; give those of one run")
        states.append(other.state_dict())
    network.load_state_dict(
        {
            name: torch.stack([state[name] for state in states]).mean(0) if value.is_floating_point() else value
            for name, value in states[0].items()
        }
    )


def calibrate_anew(
    checkpoint: Path, data: Path, out: Path, votes: Path | None, accuracy: float, risk: float, mean: Sequence[Path] = ()
) -> dict[str, float]:
    """Calibrates an emotion network on the validation split of its run, and writes it to `out`.

    Args:
        checkpoint: of the run, as training left it.
        data: the run's training data.
        mean: further checkpoints, to take the mean of the weights.
        votes: its FER+ votes, if it had any; they do not change the validation split.
        accuracy, risk: as in `choose_rule`.

    Raises:
        CheckpointError: the checkpoint cannot be loaded, or has no record of its data.
        DataError: the data cannot be used.
        ConfigError: the data are not those of the run.
    """
    network, record = load_network(checkpoint, "emotion")
    if record.data is None or "data" not in record.config:
        raise CheckpointError(f"{checkpoint}: has no record of its data; give the checkpoint of a run")
    settings = record.config["data"] | {"train": str(data), "vote_file": None if votes is None else str(votes)}
    if settings.get("test") is not None or isinstance(settings.get("val"), str):
        raise ConfigError(f"{checkpoint}: its run had files of its own for test or validation; train it again")
    splits = build_splits("emotion", bind(DataConfig, settings), record.config["seed"], network.spec.class_set)
    if splits.record().train.fingerprint != record.data.train.fingerprint:
        raise ConfigError(f"{data}: is not the training data of {checkpoint} ({record.data.train.source})")
    average(network, mean)
    fitted = calibrate(network, splits.val, accuracy, risk)
    save_network(network, out, replace(record, calibration=fitted))
    return fitted


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m emotion_ai.training.calibrate")
    parser.add_argument("checkpoint", type=Path, help="best.ckpt of a run")
    parser.add_argument("data", type=Path, help="its training data")
    parser.add_argument("out", type=Path, help="the .safetensors file to write")
    parser.add_argument("--votes", type=Path, help="its FER+ votes")
    parser.add_argument("--accuracy", type=float, default=0.9, help="of named emotions (%(default)s)")
    parser.add_argument("--risk", type=float, default=0.1, help="share of neutral faces named (%(default)s)")
    parser.add_argument(
        "--mean", type=Path, nargs="+", default=(), metavar="CHECKPOINT", help="others, to take the mean of the weights"
    )
    options = parser.parse_args()
    fitted = calibrate_anew(**vars(options))
    for name, value in fitted.items():
        print(f"{name}: {value:.4f}")


if __name__ == "__main__":
    main()
