"""The stages read faces and load data, and leave the process as it was."""

import os
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from emotion_ai.benchmarks import fixed_work, stages
from emotion_ai.data.loaders import load
from emotion_ai.inference.reader import FaceReader


class Counting:
    """A reader that counts the faces and photos that it is given."""

    def __init__(self) -> None:
        self.counts = {"read": 0, "read_crops": 0}

    def read(self, photo: bytes) -> None:
        self.counts["read"] += 1

    def read_crops(self, images: NDArray[np.uint8]) -> None:
        self.counts["read_crops"] += len(images)


@pytest.mark.parametrize(
    ("name", "method"),
    [("reading photos", "read"), ("reading crops one by one", "read_crops"), ("reading crops together", "read_crops")],
)
def test_reading_stages_are_calls_of_the_reader(name: str, method: str) -> None:
    reader = Counting()
    found = {stage.name: stage for stage in stages.reading_stages(cast(FaceReader, reader))}
    found[name].work()
    assert reader.counts == {"read": 0, "read_crops": 0} | {method: found[name].items}


def test_faces_are_found_in_every_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    photos: list[int] = []
    monkeypatch.setattr(stages, "find_faces", lambda rgb: photos.append(rgb.ndim))
    found = {stage.name: stage for stage in stages.reading_stages(cast(FaceReader, Counting()))}
    found["finding faces"].work()
    assert photos == found["finding faces"].items * [3]


def test_ingest_stages_parse_a_file_and_read_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "_ROWS", 70)
    before = os.environ["EMOTION_AI_CACHE"]
    with stages.ingest_stages(tmp_path) as (parsed, cached):
        parsed.work()
        entries = list((tmp_path / "cache").rglob("*"))
        assert entries
        cached.work()
        assert list((tmp_path / "cache").rglob("*")) == entries, "it reads what is there"
        faces = load(tmp_path / "faces.csv.xz", "emotion", "fer7")
        assert parsed.items == cached.items
        assert 0.6 * parsed.items < len(faces) < parsed.items  # two of seven classes are left out
        for stage in (parsed, cached):
            stage.fixed()
    assert os.environ["EMOTION_AI_CACHE"] == before


def test_fixed_workloads_do_the_same_each_time(tmp_path: Path) -> None:
    for make in (fixed_work.decoding, lambda: fixed_work.detector_passes(1), lambda: fixed_work.convolutions(1)):
        work = make()
        work()
        work()
    with stages.one_thread():
        assert torch.get_num_threads() == 1
