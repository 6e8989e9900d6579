"""Hydra's front door: quoting, old spellings, folders of a sweep, errors in one line."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from emotion_ai.cli.overrides import explained, job_folder, prepare
from emotion_ai.errors import ConfigError


@pytest.mark.parametrize(
    "path",
    ["/x/a(1).csv", "/x/a=b.csv", "/x/a#1.csv", "/x/ä.csv", "/x/it's.csv", "/x/a{b}.csv", "/x/a[1].csv", "~/x.csv"],
)
def test_a_path_with_special_characters_is_quoted_in_the_hint(path: str) -> None:
    with pytest.raises(ConfigError, match="special characters need quotes") as caught:
        prepare([f"data.train={path}"])
    hint = str(caught.value).partition("; write ")[2]
    (argument,) = shlex.split(hint)  # what a shell passes on
    arguments, _ = prepare([argument])
    override = OverridesParser.create().parse_override(arguments[0])
    assert override.value() == str(Path(path).expanduser())


def test_paths_in_lists_are_quoted_one_by_one() -> None:
    with pytest.raises(ConfigError, match=r"""'teachers=\["a\(1\).ckpt",b.ckpt\]'"""):
        prepare(["teachers=[a(1).ckpt,b.ckpt]"])


def test_a_path_with_spaces_needs_no_quotes() -> None:
    assert prepare(["data.train=/x/a b.csv"]) == (["data.train=/x/a b.csv"], None)


def test_old_spellings_are_translated() -> None:
    arguments, notice = prepare(["--cfg", "job", "batch=32", "++ema=0.5", "data.val=v.csv"])
    assert arguments == ["--cfg", "job", "batch_size=32", "++ema_decay=0.5", "data.test=v.csv"]
    assert notice == "batch is now batch_size; ema is now ema_decay; data.val is now data.test"


def test_arguments_of_the_trainer_need_no_plus() -> None:
    assert prepare(["trainer.fast_dev_run=true", "trainer=cpu"])[0] == ["++trainer.fast_dev_run=true", "trainer=cpu"]


def test_every_job_of_a_sweep_has_its_folder() -> None:
    name, own = "hydra.job.config.override_dirname.exclude_keys", "out=${hydra:runtime.output_dir}"
    given = ["seed=0,1", "epochs=2", "out=my run", "-m"]
    expected = ["-m", "seed=0,1", "epochs=2", 'hydra.sweep.dir="my run"', f"{name}=[out,resume,epochs]", own]
    assert prepare(given)[0] == expected
    folders = {prepare(["-m", "seed=0,1", f"epochs={epochs}"])[0][3] for epochs in (2, 3, 2)}
    assert len(folders) == 2
    assert all(folder.startswith('hydra.sweep.dir="runs/sweeps/') for folder in folders)
    assert prepare(["-m", "out=a,b"])[0] == ["-m", "out=a,b"]
    assert job_folder("data.count=200,seed=1") == "data.count=200,seed=1"
    first, second = job_folder("data.train=/x/a.csv,seed=1"), job_folder("data.train=_x/a.csv,seed=1")
    assert first != second
    assert "/" not in first + second
    assert len(job_folder("a" * 500)) < 200


@pytest.fixture
def hydra_errors() -> Iterator[None]:
    with initialize_config_module("emotion_ai_conf", version_base="1.3"):
        yield


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epoch=3", "unknown setting epoch; did you mean epochs?"),
        ("task.smooth_l1=3", "unknown setting task.smooth_l1; did you mean task.smooth_l1_beta"),
        ("optimzer=sgd", "unknown setting optimzer; did you mean optimizer"),
        ("experiment=emotoin", "experiment=emotoin: unknown choice emotoin; did you mean emotion"),
        ("data.train=a,b.csv", "data.train=a,b.csv has several values: add -m for one run each"),
        ("+seed=3", "Could not append to config"),
        ("seed", "seed: not a setting; write key=value"),
    ],
)
@pytest.mark.usefixtures("hydra_errors")
def test_errors_of_hydra_are_one_line(override: str, message: str) -> None:
    with pytest.raises(HydraException) as caught:
        compose("train", [override])
    line = str(explained(caught.value, "train", [override]))
    assert line.startswith(message)
    assert "\n" not in line
