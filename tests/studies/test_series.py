"""Series of runs: what cross-validation and ablations pool, and that they resume."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig

from emotion_ai.contract import TASKS
from emotion_ai.errors import CheckpointError, ConfigError, DataError
from emotion_ai.evaluation.statistics import t_interval
from emotion_ai.files import locked_folder
from emotion_ai.studies import ablations as module
from emotion_ai.studies.ablations import BASE, BEGIN, END, ablations
from emotion_ai.studies.cross_validation import cross_validate
from emotion_ai.training import train as training
from emotion_ai.training.train import train

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

QUICK = [
    "model.encoder.widths=[8,16]",
    "model.encoder.depths=[1,1]",
    "data.count=150",
    "batch_size=32",
    "ema_decay=0.5",
]


def config(name: str, *overrides: str) -> DictConfig:
    with initialize_config_module("emotion_ai_conf", version_base="1.3"):
        return compose(name, list(overrides))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were really trained in."""
    folders: list[Path] = []

    def counting(cfg: DictConfig) -> Any:
        folders.append(Path(cfg.out))
        return train(cfg)

    monkeypatch.setattr(training, "train", counting)
    return folders


@pytest.mark.parametrize("task", TASKS)
def test_cross_validation_tests_every_face_once(task: Any, tmp_path: Path, trained: list[Path]) -> None:
    arguments = [f"task={task}", *QUICK, "epochs=1", "data.folds=2", f"out={tmp_path}"]
    pooled = cross_validate(config("train", *arguments))
    figures = json.loads((tmp_path / "cross_validation.json").read_text())["figures"]
    name = "rmse" if task == "keypoints" else "accuracy"
    folds = [figures[name][f"fold {fold}"] for fold in range(2)]
    assert sum(fold["n"] for fold in folds) == figures[name]["pooled"]["n"] == 150
    for index, fold in enumerate(folds):
        metrics = json.loads((tmp_path / f"fold-{index}" / "run.json").read_text())["metrics"]
        assert fold["value"] == pytest.approx(metrics[f"test/{name}"], abs=1e-4)
    assert figures[name]["mean of the folds"]["value"] == pytest.approx(np.mean([fold["value"] for fold in folds]))
    assert figures[name]["mean of the folds"]["n"] == 2
    power = 2 if task == "keypoints" else 1
    mean = np.average([fold["value"] ** power for fold in folds], weights=[fold["n"] for fold in folds]) ** (1 / power)
    assert pooled[name] == figures[name]["pooled"]["value"] == pytest.approx(mean)
    assert (tmp_path / "cross_validation.png").stat().st_size > 5000
    assert len(trained) == 2

    (tmp_path / "fold-1" / "run.json").unlink()  # as if killed before it was written
    assert cross_validate(config("train", *arguments)) == pytest.approx(pooled)
    assert trained[2:] == [tmp_path / "fold-1"]
    with pytest.raises(ConfigError, match=r"made with epochs=1; delete its folder or give another out"):
        cross_validate(config("train", *arguments, "epochs=2"))


def test_a_series_that_was_moved_is_continued_where_it_lies_now(tmp_path: Path, trained: list[Path]) -> None:
    arguments = ["task=keypoints", *QUICK, "epochs=1", "data.folds=2", "logger=none"]
    pooled = cross_validate(config("train", *arguments, f"out={tmp_path / 'first'}"))
    (tmp_path / "first").rename(tmp_path / "moved")
    moved = config("train", *arguments, f"out={tmp_path / 'moved'}")
    assert cross_validate(moved) == pytest.approx(pooled)
    assert len(trained) == 2
    assert not (tmp_path / "first").exists()
    (tmp_path / "moved" / "fold-1" / "network.safetensors").unlink()
    assert cross_validate(moved) == pytest.approx(pooled)
    assert trained[2:] == [tmp_path / "moved" / "fold-1"]
    with locked_folder(tmp_path / "moved"), pytest.raises(ConfigError, match="another process writes to this folder"):
        cross_validate(moved)
    record = tmp_path / "moved" / "fold-0" / "run.json"
    text = record.read_text()
    other = json.loads(text)
    other["data"]["test"]["fingerprint"] = "of another file with this name"
    damaged = {
        json.dumps(other): "its test split was another one",
        "[1]": "holds a list",
        text[:200]: "not a readable record of a run",
        "[" * 9999: "not a readable record",
        '{"metrics": [1]}': "metrics must be a table",
        '{"config": 3}': "config",
        '{"data": {"train": 1}}': "data",
        "\udc80": "not a readable record",
    }
    for content, message in damaged.items():
        record.write_bytes(content.encode("utf-8", "surrogateescape"))
        with pytest.raises((CheckpointError, ConfigError), match=message) as refused:
            cross_validate(moved)
        assert str(record) in str(refused.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "data.folds=5"),
        (["data.folds=3", "data.test=synthetic"], "contradict"),
        (["data.folds=3", "trainer=ddp"], "one process"),
        (["data.folds=0"], "data.folds must be an integer >= 2 or null, got 0"),
        (["data.folds=3", "init_from=bundled"], "init_from and teachers may have seen the faces of a fold"),
        (["data.folds=3", "teachers=[bundled]", "distill_weight=0.5"], "init_from and teachers may have seen"),
    ],
)
def test_cross_validation_refuses_settings_that_do_not_fit(overrides: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        cross_validate(config("train", f"out={tmp_path}", *QUICK, *overrides))


TINY = [
    "epochs=1",
    "data.count=60",
    "model.encoder.widths=[8,16]",
    "model.encoder.depths=[1,1]",
    "~model.encoder.strides",
]


@pytest.fixture
def small_plan(monkeypatch: pytest.MonkeyPatch) -> DictConfig:
    """The shipped plan with one change that needs nothing more, and runs of seconds."""
    plan = config("ablations")
    for task in TASKS:
        names = ("distillation", "FER+ votes", "SGD")
        plan[task].changes = {name: change for name, change in plan[task].changes.items() if name in names}
        plan.budgets.quick[task] = TINY if task == "keypoints" else TINY[:-1]
    plan.budgets.quick.without = ["SGD"]
    monkeypatch.setattr(module, "load_plan", lambda: plan)
    return plan


def test_ablations_pair_by_seed_and_resume(tmp_path: Path, trained: list[Path], small_plan: DictConfig) -> None:
    rows = ablations("quick", None, tmp_path)
    assert len(trained) == 2 * 2 * 2  # tasks, rows, seeds
    content = json.loads((tmp_path / "ablations.json").read_text())
    for task, metric in (("keypoints", "rmse"), ("emotion", "accuracy")):
        base = rows[task][BASE]
        assert base.difference is None
        for name, row in rows[task].items():
            for seed, value in zip((0, 1), row.values, strict=True):
                path = tmp_path / task / name.replace(" ", "-") / f"seed-{seed}" / "run.json"
                record = json.loads(path.read_text())
                assert value == record["metrics"][f"val/{metric}"]
                assert record["config"]["seed"] == seed
                assert f"test/{metric}" not in record["metrics"]
                if name == "distillation":  # of the same seed: another split would leak validation faces
                    assert record["config"]["teachers"] == [f"seed-{seed}/network.safetensors"]
            assert row.differences == pytest.approx([v - b for v, b in zip(row.values, base.values, strict=True)])
            assert content["rows"][task][name]["parameters"] == row.parameters > 1000
        assert (tmp_path / f"{task}.png").stat().st_size > 5000
    table = (tmp_path / "ablations.md").read_text()
    assert "Do not quote" in table
    assert "Left out: SGD; FER+ votes, without fer2013new.csv" in table
    assert "SGD" not in rows["emotion"]
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert ablations("quick", None, moved) == rows
    assert len(trained) == 8
    with locked_folder(moved), pytest.raises(ConfigError, match="another process writes to this folder"):
        ablations("quick", None, moved)
    record = moved / "emotion" / "base" / "seed-1" / "run.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"metrics": {}}))
    with pytest.raises(CheckpointError, match=r"seed-1/run.json: has no val/accuracy"):
        ablations("quick", None, moved)


def test_the_full_table_is_written_between_its_markers_alone(
    tmp_path: Path, small_plan: DictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="needs real data"):
        ablations("full", None, tmp_path)
    with pytest.raises(DataError, match="neither"):
        ablations("quick", tmp_path, tmp_path)
    with pytest.raises(ConfigError, match=r"(?s)'foo'.*overrides are those of emotion-ai train"):
        ablations("quick", None, tmp_path, ["foo=3"])
    document, data = tmp_path / "accuracy.md", tmp_path / "data"
    data.mkdir()
    (data / "training.csv").touch()
    small_plan.budgets.full.document = str(document)
    document.write_text("nothing here")
    with pytest.raises(ConfigError, match="has no markers"):
        ablations("full", data, tmp_path)
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    monkeypatch.setattr(module, "_rows", lambda *_: {BASE: row(0.8), "change": row(0.7)})
    ablations("full", data, tmp_path)
    text = document.read_text()
    assert text.startswith(f"before\n{BEGIN}\n\nMean over 3 seeds")
    assert text.endswith(f"(images/ablations-keypoints.png)\n\n{END}\nafter\n")
    assert (tmp_path / "images" / "ablations-keypoints.png").read_bytes() == (tmp_path / "keypoints.png").read_bytes()
    assert "old" not in text
    assert "| change | 0.700 ± 0.000 | -0.100 (-0.100 to -0.100) |" in text
    ablations("full", data, tmp_path)
    assert document.read_text() == text


def row(value: float) -> module.Row:
    gap = t_interval([value - 0.8] * 2)
    same = t_interval([value, value])
    return module.Row("?", [], [value] * 2, same, 0.0, [value - 0.8] * 2, None if value == 0.8 else gap, 1.0, 5)


def test_every_listed_change_is_a_training_config() -> None:
    plan = config("ablations")
    assert len(plan.budgets.full.seeds) >= 3
    assert len(plan.budgets.cpu.seeds) >= 3
    assert len(plan.budgets.quick.seeds) >= 2
    names = {name for task in TASKS for name in plan[task].changes}
    assert all(set(budget.without) <= names for budget in plan.budgets.values())
    for task in TASKS:
        for budget in plan.budgets.values():
            config("train", *plan[task].base, *budget[task])
        base = config("train", *plan[task].base)
        for change in plan[task].changes.values():
            filled = [text.replace("{twice}", "4").replace("{base}", "'a b/x=1'") for text in change.overrides]
            given = [text.replace("{votes}", "'v.csv'") for text in filled]
            assert config("train", *plan[task].base, *given) != base
