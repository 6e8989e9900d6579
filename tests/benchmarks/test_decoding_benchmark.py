"""The benchmark of decoding has a row for each minute."""

import pytest

from emotion_ai.benchmarks import decoding


def test_decoding_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "FPS", 1)
    monkeypatch.setattr(decoding, "WIDTH", 64)
    monkeypatch.setattr(decoding, "HEIGHT", 48)
    table = decoding.benchmark(3)
    minutes, memory, times, *_ = zip(*table.rows, strict=True)
    assert minutes == ("1", "2", "3")
    assert min(float(str(value)) for value in memory) > 10
    assert min(float(str(value)) for value in times) > 0
