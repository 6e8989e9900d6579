"""The benchmark of decoding has a row for each minute."""

import pytest

from emotion_ai.benchmarks import decoding


def test_decoding_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "FPS", 1)
    monkeypatch.setattr(decoding, "WIDTH", 64)
    monkeypatch.setattr(decoding, "HEIGHT", 48)
    table = decoding.benchmark(3)
    assert [row[0] for row in table.rows] == ["1", "2", "3"]
    assert all(row[1] > 10 and row[2] > 0 for row in table.rows)
