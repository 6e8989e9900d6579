"""A copied or moved models folder names itself, whatever models.config says."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from emotion_ai.contract import SERVABLES
from emotion_ai_export.registry.fitting import fit_config
from emotion_ai_export.registry.model_config import parse, read_config, render
from emotion_ai_export.registry.publish import write_config
from emotion_ai_export.registry.staging import locked
from emotion_ai_export.registry.versions import promote, prune, rollback
from emotion_ai_export.serving.engines import ServerOptions, binary_command
from tests.export.registry.site import Site


def test_a_copied_folder_is_its_own_truth(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.publish(4)
    promote(site.base, 3)
    promote(site.base, 3, "canary")
    copy = Site(tmp_path / "copy", site.binary, site.numbered, site.poll)
    shutil.copytree(site.base, copy.base)
    for model in SERVABLES:
        shutil.rmtree(copy.base / model / "3")
    original = {path: path.read_bytes() for path in site.base.rglob("*") if path.is_file()}
    fit_config(copy.base)
    lines = capsys.readouterr().err
    assert f"models.config: named {site.base}, from which this folder was copied; it names this one now" in lines
    assert "version 3, which stable named, does not exist; the label is removed" in lines
    assert {config.base_path for config in read_config(copy.base)} == {f"{copy.base}/{model}" for model in SERVABLES}
    assert copy.listed() == (4,)
    with copy.running():
        assert copy.ask("face", "") == 4
        assert set(copy.server.states()["face"]) == {4}
        assert promote(copy.base, 2, server=copy.server) == 2
        assert copy.ask() == 2
    assert {path: path.read_bytes() for path in site.base.rglob("*") if path.is_file()} == original


COMMANDS: dict[str, Callable[[Path], object]] = {
    "promote": lambda base: promote(base, 1),
    "rollback": rollback,
    "prune": lambda base: prune(base, 3),
    "export": lambda base: write_config(base, "host"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_in_a_copied_folder_leaves_the_original(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(tmp_path / "models", Path(), None, 1)
    site.publish(3)
    promote(site.base, 2)
    shutil.copytree(site.base / "face", site.base / "own")
    elsewhere = tmp_path / "elsewhere"
    entries = "".join(
        f'config {{ name: "{path.name}" base_path: "{path}" }} ' for path in (site.base / "own", elsewhere)
    )
    file = site.base / "models.config"
    file.write_text(render([*read_config(site.base), *parse(f"model_config_list {{ {entries} }}")]))
    shutil.copytree(site.base, tmp_path / "copy")
    original = file.read_bytes()
    COMMANDS[command](tmp_path / "copy")
    assert f"named {site.base}, from which this folder was copied" in capsys.readouterr().err
    paths = [Path(config.base_path) for config in read_config(tmp_path / "copy")]
    assert paths == [*(tmp_path / "copy" / model for model in SERVABLES), tmp_path / "copy" / "own", elsewhere]
    assert file.read_bytes() == original


def test_a_copy_that_cannot_be_rewritten_is_served_from_a_fitting_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(tmp_path / "models", Path(), None, 1)
    site.publish(2)
    shutil.copytree(site.base, tmp_path / "copy")
    (tmp_path / "scratch").mkdir()
    before = (tmp_path / "copy" / "models.config").read_text()
    with locked(tmp_path / "copy"):
        fit_config(tmp_path / "copy")
    assert "another export, promote or prune is running there" in capsys.readouterr().err
    assert (tmp_path / "copy" / "models.config").read_text() == before
    command = binary_command(tmp_path / "copy", ServerOptions(), tmp_path / "scratch")
    assert f"--model_config_file={tmp_path}/scratch/models.config" in command
    paths = {config.base_path for config in read_config(tmp_path / "scratch")}
    assert paths == {f"{tmp_path}/copy/{model}" for model in SERVABLES}


def test_a_folder_for_containers_is_served_from_where_it_lies(tmp_path: Path) -> None:
    """Also where the path in the container exists on the host."""
    site = Site(tmp_path / "models", Path(), None, 1)
    site.publish(2)
    write_config(site.base, "container")
    fit_config(site.base)
    assert {config.base_path for config in read_config(site.base)} == {f"/models/{model}" for model in SERVABLES}
    promote(site.base, 2)
    assert {config.base_path for config in read_config(site.base)} == {f"/models/{model}" for model in SERVABLES}
    (tmp_path / "scratch").mkdir()
    binary_command(site.base, ServerOptions(), tmp_path / "scratch")
    assert {config.base_path for config in read_config(tmp_path / "scratch")} == {
        f"{site.base}/{model}" for model in SERVABLES
    }
