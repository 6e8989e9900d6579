from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf import OmegaConf

import emotion_ai_conf
from emotion_ai.errors import ConfigError
from emotion_ai.models import FaceNetwork
from emotion_ai.training import config
from emotion_ai.training.config import TrainConfig, missing_settings
from emotion_ai.training.optim import build_optimizer, build_scheduler

CONF = Path(emotion_ai_conf.__file__).parent
ROOTS = sorted(path.stem for path in CONF.glob("*.yaml"))
GROUPS = {
    group: sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    for group in (
        *(
            "task",
            "data",
            "classes",
            "model",
            "optimizer",
            "scheduler",
            "trainer",
            "logger",
            "callbacks",
            "debug",
            "experiment",
        ),
    )
}
CHOICES = [(group, choice) for group, choices in GROUPS.items() for choice in choices]


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_of_training_composes_and_fits_its_code(
    group: str, choice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if choice == "timm":
        pytest.importorskip("timm")
    with initialize_config_module("emotion_ai_conf", version_base="1.3"):
        cfg = compose("train", [f"{group}={choice}", "out=run"])
    for key in missing_settings(cfg):
        OmegaConf.update(cfg, key, ["a"] if key == "teachers" else "a", merge=False)
    with monkeypatch.context() as patch:
        patch.setattr(config, "find_data", lambda path: path)
        typed = TrainConfig.of(cfg)
    network = FaceNetwork(typed.task.name, typed.model.encoder, typed.model.head)
    optimizer = build_optimizer(network, typed.optimizer)
    build_scheduler(optimizer, typed.scheduler, 10, "val/rmse", "min")
    assert typed.patience is None or typed.patience < typed.epochs or typed.epochs == 1


@pytest.mark.parametrize(
    "recipe", ["emotion_votes", "emotion_distilled", "emotion_seven", "emotion_student", "keypoints_distilled"]
)
def test_a_distilled_recipe_needs_its_networks(recipe: str) -> None:
    with initialize_config_module("emotion_ai_conf", version_base="1.3"):
        cfg = compose("train", [f"experiment={recipe}", "out=run"])
    with pytest.raises(ConfigError, match="init_from, teachers must be given, e.g. init_from="):
        TrainConfig.of(cfg)


def test_presets_find_their_files_below_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def composed(*overrides: str) -> TrainConfig:
        with initialize_config_module("emotion_ai_conf", version_base="1.3"):
            return TrainConfig.of(compose("train", [*overrides, "out=run"]))

    monkeypatch.delenv("EMOTION_AI_DATA", raising=False)
    with pytest.raises(ConfigError, match="EMOTION_AI_DATA is not set"):
        composed("data=fer2013")
    monkeypatch.setenv("EMOTION_AI_DATA", str(tmp_path))
    with pytest.raises(ConfigError, match=r"no training.csv\* below EMOTION_AI_DATA"):
        composed("data=kaggle")
    file = tmp_path / "fer (1)" / "fer2013.csv.xz"
    file.parent.mkdir()
    file.touch()
    assert composed("data=fer2013").data.train == str(file)
    with pytest.raises(ConfigError, match="data.train must be given"):
        composed("data=folder")
    assert composed("data=folder", "data.train=faces").data.train == "faces"


@pytest.mark.parametrize("root", ROOTS)
def test_an_unknown_key_is_an_error(root: str) -> None:
    with initialize_config_module("emotion_ai_conf", version_base="1.3"), pytest.raises(HydraException):
        compose(root, ["no_such_key=1"])


@pytest.mark.parametrize("path", sorted(CONF.glob("experiment/*.yaml")), ids=lambda path: path.stem)
def test_an_experiment_begins_with_the_command_that_runs_it_and_what_it_buys(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert any(line.startswith(f"# emotion-ai train experiment={path.stem}") for line in lines[:2])
    assert lines[2].startswith("# Buys ")
    assert len(lines) < 31
