"""Labels that move, in models.config and on a server or its double."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from emotion_ai.cli import app
from emotion_ai.contract import SERVABLES
from emotion_ai.errors import ExportError
from emotion_ai.published import list_versions
from emotion_ai_export.registry.model_config import ModelConfig, parse, read_config, render
from emotion_ai_export.registry.publish import write_config
from emotion_ai_export.registry.versions import promote, prune, rollback
from tests.export.registry.site import Site, add_other, asking

LABEL = 'version_labels { key: "mine" value: %d }'


@pytest.mark.parametrize(
    ("folder", "rest", "reason"),
    [
        ("other", LABEL % 7, r"mine of other is version 7 there, which is not loaded \(not there\)"),
        ("none", "", "no version of other"),
    ],
)
@pytest.mark.parametrize("number", [2, 3])
def test_another_models_entry_that_stops_the_server_is_named_at_once(
    site: Site, folder: str, rest: str, reason: str, number: int
) -> None:
    """Whether a version has to be loaded or is."""
    site.publish(3)
    shutil.copytree(site.base / "face", site.base / "other")
    if rest:
        add_other(site, LABEL % 3)
    with site.running():
        add_other(site, rest, folder)
        text = (site.base / "models.config").read_text()
        with pytest.raises(ExportError, match=f"does not follow .*models.config: .*{reason}.*correct that entry"):
            promote(site.base, number, server=site.server)
        assert (site.base / "models.config").read_text() == text
        assert site.ask() == 1
        if rest:  # the server waits for a folder that is missing until it is started again
            add_other(site, LABEL % 3)
            assert promote(site.base, number, server=site.server) == number


def test_a_label_on_a_version_that_is_not_loaded_is_noticed_and_led_out_of(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.publish(4)
    promote(site.base, 2)
    with site.running():
        assert promote(site.base, 2, server=site.server) == 2
        result = CliRunner().invoke(app, ["promote", str(site.base), "3", "--offline", "--server", site.address])
        assert "a server is running" in result.stderr
        time.sleep(3 * site.poll)
        assert site.ask() == 2
        result = CliRunner().invoke(app, ["versions", str(site.base), "--server", site.address, "--json"])
        assert {v["number"]: v["labels"] for v in json.loads(result.stdout)} == {1: [], 2: ["stable"], 3: [], 4: []}
        assert f"stable is 2 on {site.address}, but 3 in models.config" in result.stderr
        with asking(site, {2}):
            assert prune(site.base, 1, site.server) == [1]
        assert list_versions(site.base / "face") == [2, 3, 4]  # what either calls stable stays
        assert f"stable is version 3 there, but version 2 on {site.address}" in capsys.readouterr().err
        promote(site.base, 3)
        assert rollback(site.base, server=site.server) == 2
        time.sleep(3 * site.poll)
        promote(site.base, 3)
        assert promote(site.base, 4, "canary", site.server) == 4
        assert site.labels() == {"stable": 2, "canary": 4}
        time.sleep(3 * site.poll)
        promote(site.base, 3)
        with asking(site, {2, 3}):
            assert promote(site.base, 3, server=site.server) == 3
        assert site.ask() == 3


def test_a_server_that_reads_another_file_changes_nothing(site: Site, tmp_path: Path) -> None:
    site.publish(3)
    with site.running():
        promote(site.base, 2, server=site.server)
    shutil.copytree(site.base, tmp_path / "other")
    other = Site(tmp_path / "other", site.binary, site.numbered, site.poll)
    write_config(other.base, "host")
    promote(other.base, 1)
    before = (site.base / "models.config").read_text()
    with other.running():
        site.port = other.port
        for command in (promote, rollback):
            with pytest.raises(ExportError, match="stable is version 1 there, but version 2 in .* with --server"):
                command(site.base, server=site.server)
        with pytest.raises(ExportError, match="which that server does not read"):
            prune(site.base, 1, site.server)
    assert (site.base / "models.config").read_text() == before
    assert list_versions(site.base / "face") == [1, 2, 3]


@pytest.mark.timeout(1800)  # 100 moves, beside the real server, take about ten minutes
def test_quick_moves_never_believe_a_version_that_is_about_to_be_unloaded(site: Site) -> None:
    site.publish(3)
    moves = 100 if site.numbered else 7
    with site.running(), asking(site, {1, 2, 3}):
        for move in range(moves):
            if move % 3 == 2:
                rollback(site.base, server=site.server)
            else:
                promote(site.base, move % 2 + 1, server=site.server)
            assert site.ask() == site.labels()["stable"]


def test_a_label_that_was_written_on_a_stale_state_moves_all_the_same(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that is dropped behind the command's back, between its load and its label."""
    from emotion_ai_export.registry import rollout

    site.publish(2)
    relabel = rollout.Rollout.relabel

    def dropped(self: rollout.Rollout, configs: list[ModelConfig], label: str, number: int) -> object:
        monkeypatch.setattr(rollout.Rollout, "relabel", relabel)
        file = site.base / "models.config"
        file.write_text(file.read_text().replace("        versions: 2\n", ""))
        while rollout.loaded(site.server.states(), 2):
            time.sleep(0.01)
        return relabel(self, configs, label, number)

    with site.running():
        monkeypatch.setattr(rollout.Rollout, "relabel", dropped)
        assert promote(site.base, 2, server=site.server) == 2
        assert site.ask() == 2


def test_a_second_server_of_the_folder_follows(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although nothing watches it."""
    if not site.numbered:
        site.poll = 0.3
        monkeypatch.setenv("TFS_DOUBLE_SCALE", "0.3")
    site.publish(3)
    second = Site(site.base, site.binary, site.numbered, site.poll)
    with site.running(), second.running():
        for move in range(1, 13 if site.numbered else 4):
            promote(site.base, move % 3 + 1, server=site.server)
        deadline = time.monotonic() + max(10 * site.poll, 30)
        while second.ask() != site.labels()["stable"] and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [second.ask(model) for model in SERVABLES] == [site.ask(model) for model in SERVABLES]


def test_names_that_no_request_can_have_do_no_harm(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """A label and a model, both written by hand."""
    site.publish(2)
    shutil.copytree(site.base / "face", site.base / "other")
    own = [replace(config, labels=config.labels | {"my-label": 1}) for config in read_config(site.base)]
    other = parse(f'model_config_list {{ config {{ name: "odd:name" base_path: "{site.base}/other" }} }}')
    (site.base / "models.config").write_text(render([*own, *other]))
    with site.running():
        assert promote(site.base, 2, server=site.server) == 2
        assert prune(site.base, 1, site.server) == []
        CliRunner().invoke(app, ["versions", str(site.base), "--server", site.address], catch_exceptions=False)
        assert site.ask() == 2
    assert site.labels() == {"my-label": 1, "stable": 2}
    assert "my-label" not in capsys.readouterr().err
