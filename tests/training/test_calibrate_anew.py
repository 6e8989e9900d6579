"""A run of seven classes, and its calibration repeated by the command."""

from pathlib import Path

import pytest
import torch

from emotion_ai.errors import CheckpointError, DataError
from emotion_ai.models import FaceNetwork, load_network, save_network
from emotion_ai.training.calibrate import average, calibrate_anew
from emotion_ai.training.train import train
from tests.training.test_train import QUICK, config

SMALL = {"name": "residual", "widths": [8, 16], "depths": [1, 1]}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    train(config("task=emotion", "classes=seven", *QUICK, "epochs=1", f"out={out}"))
    return out


def test_the_mean_of_a_runs_weights(run: Path, tmp_path: Path) -> None:
    best, last = (load_network(run / name, "emotion").network for name in ("best.ckpt", "last.ckpt"))
    with torch.no_grad():
        for weights in last.parameters():
            weights.add_(2)
    other = tmp_path / "other.safetensors"
    record = load_network(run / "last.ckpt", "emotion").record
    save_network(last, other, record)
    first = {name: value.clone() for name, value in best.state_dict().items()}
    average(best, [other])
    for name, value in best.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (first[name] + last.state_dict()[name]) / 2)
    out = tmp_path / "mean.safetensors"
    arguments = (run / "best.ckpt", Path("synthetic"), out, None, 0.9, 0.1)
    assert calibrate_anew(*arguments, [other]) != calibrate_anew(*arguments)
    five = tmp_path / "five.safetensors"
    save_network(FaceNetwork("emotion", SMALL), five, record)
    with pytest.raises(CheckpointError, match="holds another network than the first checkpoint"):
        average(best, [five])


def test_calibrating_anew_gives_what_the_run_gave(run: Path, tmp_path: Path) -> None:
    network, record = load_network(run / "network.safetensors", "emotion")
    assert network.spec.class_set.names[5:] == ("Fear", "Neutral")
    assert {"emotion_temperature", "neutral_lead", "named/Neutral"} <= record.calibration.keys()
    out, synthetic = tmp_path / "again.safetensors", Path("synthetic")
    fitted = calibrate_anew(run / "best.ckpt", synthetic, out, None, 0.9, 0.1)
    assert fitted == pytest.approx(record.calibration)
    again = load_network(out, "emotion")
    assert again.network.spec.emotion_temperature == pytest.approx(network.spec.emotion_temperature)
    assert again.record.calibration == pytest.approx(record.calibration)
    with pytest.raises(DataError, match="gone: no such file or folder"):
        calibrate_anew(run / "best.ckpt", tmp_path / "gone", out, None, 0.9, 0.1)
