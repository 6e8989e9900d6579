"""The smoothing benchmark's measures on known movements."""

import numpy as np
import pytest

from emotion_ai.benchmarks.smoothing import FPS, lag, main, points, reduction, video
from emotion_ai.inference.reader import FaceReader
from emotion_ai.vision.photo import PORTRAITS, load_photo


def test_reduction_and_lag_of_known_movements() -> None:
    rng = np.random.default_rng(0)
    read = rng.normal(size=(3 * FPS, 15, 2))
    assert reduction(read, read / 4) == pytest.approx(0.75)
    seconds = np.arange(4 * FPS) / FPS
    swaying = np.zeros((len(seconds), 15, 2))
    swaying[..., 0] = np.sin(np.pi * seconds)[:, None]
    late = np.zeros_like(swaying)
    late[..., 0] = np.sin(np.pi * (seconds - 0.02))[:, None]
    assert lag(swaying, late) == pytest.approx(0.02, abs=1e-3)
    assert lag(swaying, swaying) == 0


def test_the_face_of_a_video_moves_by_its_reach() -> None:
    portrait = load_photo(PORTRAITS[0]).rgb
    frames = video(portrait, 30, FPS + 1, 0)  # half a period: at a quarter it is farthest, at the end in the middle
    assert all(frame.shape == portrait.shape for frame in frames)
    read, smoothed = points(FaceReader.bundled(), [frames[0], frames[12], frames[25]])
    np.testing.assert_allclose(read[1, :, 0] - read[0, :, 0], -30, atol=3)
    np.testing.assert_allclose(read[2], read[0], atol=3)
    np.testing.assert_array_equal(smoothed[0], read[0])


@pytest.mark.slow
def test_the_command_prints_both_measures(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["smoothing", "--videos", "1", "--seconds", "2"])
    main()
    shown = capsys.readouterr().out
    assert "at rest: reduction of movement │ 0." in shown
    assert "swaying: lag in milliseconds" in shown
    assert "95 % interval" in shown


def test_too_short_videos_are_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--videos", "0"], ["--seconds", "1"]):
        monkeypatch.setattr("sys.argv", ["smoothing", *arguments])
        with pytest.raises(SystemExit, match="2"):
            main()
        assert "error: --videos must be at least 1 and --seconds at least 2" in capsys.readouterr().err
