"""Run records and command lines of older versions."""

from typing import Any

import pytest

from emotion_ai.contract import TASKS
from emotion_ai.legacy import SETTINGS, translate_overrides, upgrade_config, upgrade_record
from emotion_ai.models.checkpoint import bundled
from emotion_ai.provenance import RunRecord, SplitRecord
from emotion_ai.published import read_header

SPLIT = {"faces": 5, "source": "a.csv", "fingerprint": "f"}
OLD: dict[str, Any] = {
    "config": {
        "batch": 32,
        "ema": 0.9,
        "distil": 0.5,
        "distil_shift": 4,
        "init": None,
        "report": True,
        "task": {"name": "emotion", "smoothing": 0.1, "optimizer": {"name": "sgd", "lr": 0.05, "weight_decay": 0.0}},
        "model": {"dropout": 0.2},
        "data": {"train": "a.csv", "val": "b.csv", "select": 0.1, "votes": None},
    },
    "data": {"how": "separate file", "training_twins_of_report_removed": 3, "train": SPLIT, "report": SPLIT},
    "metrics": {"val/accuracy": 0.5},
    "epochs": 2,
    "seconds": 3.5,
}


def test_a_record_of_an_older_version_is_read() -> None:
    record = RunRecord.from_dict(OLD)
    assert record.data is not None
    assert record.data.test == SplitRecord(5, "a.csv", "f")
    assert record.data.val is None
    assert record.data.training_duplicates_of_test_removed == 3
    assert record.config["data"] == {"train": "a.csv", "val": 0.1, "test": "b.csv", "vote_file": None}
    assert record.config["task"] == {
        "name": "emotion",
        "label_smoothing": 0.1,
        "dropout": 0.2,
        "augment": {"erasing_size": [0.1, 0.4]},
        "confident_accuracy": 0.9,
    }
    assert record.config["optimizer"] == {
        "_target_": "torch.optim.SGD",
        "momentum": 0.9,
        "nesterov": True,
        "lr": 0.05,
        "weight_decay": 0.0,
    }
    assert record.config["scheduler"]["name"] == "one_cycle"
    names = ("batch_size", "ema_decay", "distill_weight", "teacher_shift_px", "init_from", "test")
    assert [record.config[name] for name in names] == [32, 0.9, 0.5, 4, None, True]
    assert not set(SETTINGS) & set(record.config)
    assert (record.metrics, record.epochs, record.seconds) == ({"val/accuracy": 0.5}, 2, 3.5)


def test_current_records_come_back_unchanged() -> None:
    current = upgrade_record(OLD)
    assert upgrade_record(current) == current
    assert RunRecord.from_dict(current).as_dict() == current
    assert upgrade_config({}) == {}
    assert RunRecord.from_dict({}).as_dict() == {}


@pytest.mark.parametrize("task", TASKS)
def test_the_records_of_the_bundled_weights_are_read(task: Any) -> None:
    record = RunRecord.from_dict(read_header(bundled(task))["record"])
    assert record.data is not None
    assert record.data.val is not None
    assert record.data.test is not None
    assert record.config["task"]["name"] == task
    assert record.config["data"]["val"] == 0.1
    assert {"batch_size", "ema_decay", "optimizer", "scheduler"} <= set(record.config)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("batch=32", "batch_size=32"),
        ("++ema=0.5", "++ema_decay=0.5"),
        ("data.select=0.2", "data.val=0.2"),
        ("data.votes='a=b.csv'", "data.vote_file='a=b.csv'"),
        ("+task.votes=0.5", "+task.vote_weight=0.5"),
        ("task.optimizer.lr=1e-3", "optimizer.lr=1e-3"),
        ("++task.optimizer.name=sgd", "optimizer=sgd"),
        ("report=false", "test=false"),
        ("data.val=validation.csv", "data.test=validation.csv"),
        ("data.val=null", "data.test=null"),
    ],
)
def test_old_overrides_are_translated_with_a_notice(old: str, new: str) -> None:
    translated, notice = translate_overrides(["seed=1", old])
    assert translated == ["seed=1", new]
    assert notice is not None
    assert " is now " in notice


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.val=0.2", "batch_size=8", "+trainer.fast_dev_run=true", "~model.encoder.strides", "not an override"],
        ["data.val=0.1,0.2"],
        ["data.val=choice(0.1,0.2)"],
        ["data.val=val.csv", "data.test=test.csv"],
    ],
)
def test_current_overrides_stay(overrides: list[str]) -> None:
    assert translate_overrides(overrides) == (overrides, None)
