"""Drift: what has changed alarms, what has not does not, and bad input is one error."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.stats import binom

from emotion_ai.contract import EMOTIONS
from emotion_ai.errors import ConfigError, DataError
from emotion_ai.evaluation.answers import DESCRIPTION, find_reference, read_answers
from emotion_ai.evaluation.drift import DriftTest, compare
from emotion_ai.evaluation.drift_stage import DriftOptions, drift_command
from emotion_ai.evaluation.statistics import holm
from emotion_ai.inference.answer_rows import SCHEMA, write_rows
from emotion_ai.published import REFERENCE_FILE

SHARES = (0.19, 0.02, 0.24, 0.37, 0.18)


def answers(count: int, seed: int, **columns: Any) -> pa.Table:
    """Rows as a log has them, drawn from one distribution except for the given columns."""
    rng = np.random.default_rng(seed)
    found: dict[str, Any] = {
        "time": np.arange(count) * 10**6,
        "face": np.ones(count, int),
        "version": np.full(count, 1),
        "emotion": rng.choice(EMOTIONS, count, p=SHARES),
        "confidence": rng.beta(4, 2, count),
        "brightness": rng.normal(120, 30, count),
        "contrast": rng.normal(55, 12, count),
        "sharpness": rng.lognormal(-1.5, 0.4, count),
        "size": rng.choice([48, 96], count),
        **columns,
    }
    arrays = [
        pa.array(found[field.name], from_pandas=True).cast(field.type)
        if field.name in found
        else pa.nulls(count, field.type)
        for field in SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    def folder(name: str, table: pa.Table) -> Path:
        path = tmp_path / name / "answers.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_rows(table, path)
        return path.parent

    return folder


def alarms(reference: Path, log: Path, seed: int = 0, **options: Any) -> list[str]:
    group = options.pop("group", "source")
    drift = compare(
        read_answers(reference, group=group), read_answers(log, group=group), DriftTest(seed=seed, **options)
    )
    return [difference.measure for difference in drift.differences if difference.drifted]


def test_the_same_answers_do_not_alarm(folder: Callable[..., Path]) -> None:
    reference = folder("reference", answers(1000, 0))
    assert alarms(reference, reference) == []


@pytest.mark.parametrize("size", [1, 8])
def test_false_alarms_are_as_rare_as_stated(folder: Callable[..., Path], size: int) -> None:
    """Draws of the same distribution, each face alone, or in groups that resemble each other."""
    rng = np.random.default_rng(1)

    def draw(count: int, seed: int) -> pa.Table:
        groups = np.arange(count) // size
        shift = rng.normal(0, 40, groups.max() + 1)[groups] if size > 1 else np.zeros(count)
        return answers(count, seed, brightness=rng.normal(120, 30, count) + shift, source=[f"{g}" for g in groups])

    stated, draws = 0.1, 25
    reference = folder("reference", answers(1500, 0) if size == 1 else draw(2400, 0))
    options = {"false_alarms": stated, "min_difference": 0.0, "measures": ("answers", "brightness")}
    found = [bool(alarms(reference, folder("log", draw(500, 2 + i)), i, **options)) for i in range(draws)]
    assert sum(found) <= binom.ppf(0.999, draws, stated)


def test_faces_of_a_group_are_not_taken_as_independent(folder: Callable[..., Path]) -> None:
    """Twelve people with 50 faces each differ by chance; as 600 independent faces they would alarm."""
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(12), 50)
    brightness = rng.normal(130, 30, 12)[people] + rng.normal(0, 2, 600)
    reference = folder("reference", answers(2000, 0))
    log = folder("log", answers(600, 1, brightness=brightness, source=[f"{person}/a.jpg" for person in people]))
    assert alarms(reference, log, group="answer") == ["brightness"]
    assert alarms(reference, log) == []
    assert alarms(reference, log, group="folder") == []


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"brightness": np.r_[np.full(250, 60.0), np.linspace(60, 180, 250)]}, ["brightness"]),
        (
            {"emotion": np.r_[np.full(150, "Sad"), np.random.default_rng(5).choice(EMOTIONS, 350, p=SHARES)]},
            ["answers"],
        ),
        ({"confidence": np.random.default_rng(5).beta(3, 3, 500)}, ["confidence"]),
        ({"size": np.full(500, 30)}, ["size"]),
    ],
)
def test_a_change_alarms_within_500_answers(
    folder: Callable[..., Path], changed: dict[str, Any], expected: list[str]
) -> None:
    reference = folder("reference", answers(2000, 0))
    for seed in range(5):
        assert alarms(reference, folder("log", answers(500, 1 + seed, **changed)), seed) == expected


def test_a_small_difference_does_not_alarm_however_many_answers(folder: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    reference = folder("reference", answers(20_000, 0))
    log = folder("log", answers(200_000, 1, brightness=rng.normal(124, 30, 200_000)))
    assert alarms(reference, log, min_difference=0) == ["brightness"]
    assert alarms(reference, log) == []


def test_what_the_reference_lacks_is_named(
    folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = np.full(500, np.nan)
    reference = folder("reference", answers(500, 1, brightness=nothing, emotion=[None] * 500, confidence=nothing))
    log = folder("log", answers(500, 2))
    drift = compare(read_answers(reference), read_answers(log), DriftTest())
    assert [difference.measure for difference in drift.differences] == ["contrast", "sharpness", "size"]
    assert drift.left_out == ("answers", "confidence", "brightness")
    options = DriftOptions(reference, log, out=tmp_path / "drift.png")
    drift_command(options, json=False)
    assert "not compared, because the reference lacks it: answers, confidence, brightness" in capsys.readouterr().out
    drift_command(options, json=True)
    assert json.loads(capsys.readouterr().out)["left_out"] == ["answers", "confidence", "brightness"]
    with pytest.raises(DataError, match="no measure of brightness has 50 values; give another reference"):
        compare(read_answers(reference), read_answers(log), DriftTest(measures=("brightness",)))


@pytest.mark.parametrize("unknown", [500, 460, 100])
def test_what_the_log_lacks_is_an_error(unknown: int, folder: Callable[..., Path]) -> None:
    """Otherwise a client that stops to log a measure would hide every change of it, or of the faces that lack it."""
    reference = folder("reference", answers(500, 1))
    emotions = [None if i < unknown else "Happy" for i in range(500)]
    log = folder("log", answers(500, 2, emotion=emotions))
    expected = rf"log: {unknown / 5:.0f}% of its faces have no answers, but 0% of the reference's; .*: --measure conf"
    with pytest.raises(DataError, match=expected):
        compare(read_answers(reference), read_answers(log), DriftTest())
    rest = DriftTest(measures=("confidence", "brightness", "contrast", "sharpness", "size"))
    assert not compare(read_answers(reference), read_answers(log), rest).alarm


def test_a_few_faces_without_a_measure_are_left_out(folder: Callable[..., Path]) -> None:
    size = np.where(np.arange(500) < 30, np.nan, np.random.default_rng(3).choice([48, 96], 500))
    log = folder("log", answers(500, 2, size=size))
    busy = np.where(np.arange(500) % 4 > 0, np.nan, np.random.default_rng(4).normal(120, 30, 500))  # see SAMPLED
    for table in (pq.read_table(log), answers(500, 2, brightness=busy)):
        drift = compare(
            read_answers(folder("reference", answers(500, 1))), read_answers(folder("log", table)), DriftTest()
        )
        assert len(drift.differences) == 6
        assert not drift.alarm


def test_many_groups_are_drawn_from(folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emotion_ai.evaluation.drift.MAX_GROUPS", 100)
    table = answers(1000, 0, source=[f"{i // 2}" for i in range(1000)])
    drift = compare(
        read_answers(folder("reference", answers(1000, 0))), read_answers(folder("log", table)), DriftTest()
    )
    assert (drift.groups, drift.faces) == ((1000, 100), (1000, 200))


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([]) == []


def test_errors_and_photos_without_a_face_are_not_answers(folder: Callable[..., Path]) -> None:
    table = answers(100, 0, face=[1] * 60 + [None] * 40, error=[None] * 80 + ["no answer"] * 20)
    found = read_answers(folder("log", table))
    assert (len(found), found.failed) == (60, 20)


def test_answers_of_other_versions_are_left_out(folder: Callable[..., Path]) -> None:
    table = answers(300, 0, version=np.r_[np.full(100, 1.0), np.full(100, 2.0), np.full(100, np.nan)])
    log = folder("log", table)
    assert read_answers(log).versions == (1, 2)
    assert len(read_answers(log, 2)) == 200


@pytest.mark.parametrize(
    ("group", "expected"),
    [("source", 5), ("folder", 4), ("minute", 2), ("hour", 1), ("answer", 6), ("label", 3)],
)
def test_groups(folder: Callable[..., Path], group: str, expected: int) -> None:
    table = answers(
        6,
        0,
        time=np.array([0, 1, 2, 70, 71, 72]) * 10**6,
        source=["a/1", "a/1", "a/2", "b/1", None, None],
        label=["stable", "stable", "canary", "canary", "canary", None],
    )
    assert len(set(read_answers(folder("log", table), group=group).groups)) == expected


@pytest.mark.parametrize("group", ["minute", "folder", "person"])
def test_faces_of_a_reference_are_independent_whatever_groups_the_log_has(
    folder: Callable[..., Path], group: str
) -> None:
    table = answers(60, 0, time=np.zeros(60, int), source=[f"{i}" for i in range(60)])
    reference = folder("reference", table.replace_schema_metadata({DESCRIPTION: b"60 faces"}))
    assert len(set(read_answers(reference, group=group).groups)) == 60


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models folder with the references of versions 1 and 2; in version 3 it is missing."""
    for version in (1, 2, 3):
        path = tmp_path / "models" / "face" / str(version) / REFERENCE_FILE
        path.parent.mkdir(parents=True)
        if version < 3:
            write_rows(answers(1000, version, version=np.full(1000, version)), path)
    return tmp_path / "models"


def test_a_reference_is_found_in_a_models_folder(models: Path) -> None:
    file = models / "face/2" / REFERENCE_FILE
    assert find_reference(models, 2) == find_reference(models / "face/2") == find_reference(models / "face", 2) == file
    assert find_reference(models, prefer=(1, 2, 7)) == file  # the newest that the log has
    with pytest.raises(DataError, match=r"face/3.*is missing; export again"):
        find_reference(models)
    with pytest.raises(DataError, match="has no version 9; it has 1, 2, 3"):
        find_reference(models, 9)


def test_only_answers_of_the_version_are_compared_with_its_reference(
    models: Path, folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_1, of_2 = answers(200, 5), answers(300, 6, version=np.full(300, 2))
    log = folder("log", pa.concat_tables([of_1, of_2]))
    assert drift_command(DriftOptions(models, log, out=tmp_path / "drift.png"), json=True) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["drift"], record["log"]["faces"], record["reference"]["versions"]) == (False, 300, [2])
    write_rows(of_1, models / "face/3" / REFERENCE_FILE)
    with pytest.raises(DataError, match="holds answers of version 1, 2, not of 3"):
        drift_command(DriftOptions(models / "face/3", log, out=tmp_path / "drift.png"), json=True)


def test_the_command_prints_draws_and_returns_1_for_drift(
    folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = folder("reference", answers(800, 0))
    log = folder("log", answers(500, 1, brightness=np.full(500, 60.0)))
    picture = tmp_path / "drift.png"
    assert drift_command(DriftOptions(reference, log, out=picture), json=False) == 1
    shown = capsys.readouterr().out
    assert shown.count("drifted ") == 1
    assert "800 faces" in shown
    with Image.open(picture) as image:
        assert image.size > (900, 600)
    assert drift_command(DriftOptions(reference, log, out=picture, measures=("size",)), json=True) == 0
    assert [entry["measure"] for entry in json.loads(capsys.readouterr().out)["measures"]] == ["size"]


def test_bad_input_is_one_error(folder: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    broken = folder("broken", answers(100, 0)) / "answers.parquet"
    broken.write_bytes(broken.read_bytes()[:-20])
    other = folder("other", answers(1, 0)) / "answers.parquet"
    pq.write_table(pa.table({"a": [1]}), other)
    texts, twice = (folder(name, answers(100, 0)) / "answers.parquet" for name in ("texts", "twice"))
    table = pq.read_table(texts)
    place = table.schema.get_field_index("brightness")
    pq.write_table(table.set_column(place, "brightness", pa.array(["dark"] * len(table))), texts)
    pq.write_table(table.append_column("face", table["face"]), twice)
    mixed = folder("mixed", answers(100, 0))
    for name, note in (("one", "text"), ("two", 5)):
        pq.write_table(table.append_column("note", pa.array([note] * len(table))), mixed / f"{name}.parquet")
    for path, message in (
        (texts, "the column brightness holds string, not float"),
        (twice, "has two columns of one name"),
        (mixed, "the files have different columns"),
        (tmp_path / "nothing", "no such file or folder"),
        (tmp_path / "empty", r"holds no \*.parquet files"),
        (broken, "not a readable Parquet file"),
        (other, "has no column face"),
    ):
        with pytest.raises(DataError, match=message):
            read_answers(path)
    good = read_answers(folder("good", answers(100, 0)))
    with pytest.raises(DataError, match="holds 49 answered faces; at least 50 are needed"):
        compare(good, read_answers(folder("few", answers(49, 0))), DriftTest())
    with pytest.raises(DataError, match="of 3 groups; at least 10"):
        compare(read_answers(folder("few", answers(99, 0, source=list("abc") * 33))), good, DriftTest())
    with pytest.raises(DataError, match="cannot group by 'person'; choose one of answer, folder"):
        read_answers(folder("good", answers(100, 0)), group="person")
    with pytest.raises(DataError, match="cannot group by 'probabilities'; choose one of"):
        read_answers(folder("good", answers(100, 0)), group="probabilities")
    wrong: list[dict[str, Any]] = [{"false_alarms": 0.0}, {"min_difference": 1.5}, {"measures": ("bright",)}]
    for options in wrong:
        with pytest.raises(ConfigError):
            DriftTest(**options)
