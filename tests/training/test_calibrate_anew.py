"""A run of seven classes, and its calibration repeated by the command."""

from pathlib import Path

import pytest

from emotion_ai.errors import DataError
from emotion_ai.models import load_network
from emotion_ai.training.calibrate import calibrate_anew
from emotion_ai.training.train import train
from tests.training.test_train import QUICK, config

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


def test_calibrating_anew_gives_what_the_run_gave(tmp_path: Path) -> None:
    train(config("task=emotion", "classes=seven", *QUICK, "epochs=1", f"out={tmp_path}"))
    network, record = load_network(tmp_path / "network.safetensors", "emotion")
    assert network.spec.class_set.names[5:] == ("Fear", "Neutral")
    assert {"emotion_temperature", "neutral_lead", "named/Neutral"} <= record.calibration.keys()
    out, synthetic = tmp_path / "again.safetensors", Path("synthetic")
    fitted = calibrate_anew(tmp_path / "best.ckpt", synthetic, out, None, 0.9, 0.12)
    assert fitted == pytest.approx(record.calibration)
    again = load_network(out, "emotion")
    assert again.network.spec.emotion_temperature == pytest.approx(network.spec.emotion_temperature)
    assert again.record.calibration == pytest.approx(record.calibration)
    with pytest.raises(DataError, match="gone: no such file or folder"):
        calibrate_anew(tmp_path / "best.ckpt", tmp_path / "gone", out, None, 0.9, 0.12)
