"""Versions that load, load slowly or fail to, beside a server or its double."""

import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from emotion_ai.cli import app
from emotion_ai.client.rest import RestTransport
from emotion_ai.contract import SERVABLES
from emotion_ai.errors import ExportError
from emotion_ai_export.registry.fitting import fit_config
from emotion_ai_export.registry.listing import describe_versions
from emotion_ai_export.registry.loading import garbage_of
from emotion_ai_export.registry.model_config import read_config, replace_entries
from emotion_ai_export.registry.publish import write_checksums, write_config
from emotion_ai_export.registry.rollout import load_published, server_of
from emotion_ai_export.registry.server_record import left_out
from emotion_ai_export.registry.versions import promote, prune, rollback
from emotion_ai_export.registry.watched_server import VersionState, WatchedServer
from tests.export.registry.site import NO_RETRIES, Site, add_other, asking
from tests.export.serving_double.saved_models import fake_version

DEFAULTS = "--max_num_load_retries=5"  # as without the flag


def test_a_broken_version_is_refused_at_once_and_left_out_until_it_is_promoted_again(site: Site) -> None:
    site.publish(2)
    site.add(3, broken=True)
    before = (site.base / "models.config").read_text()
    with site.running():
        with asking(site, {1}):
            start = time.monotonic()
            with pytest.raises(ExportError, match=r"cannot load face version 3: .*saved_model\.pb.* left out") as error:
                promote(site.base, 3, server=site.server)
            assert time.monotonic() - start < 30  # rather than after the time-out of 120 s
        assert (site.base / "models.config").read_text() == before
        assert [*left_out(site.base)] == [3]
        assert left_out(site.base)[3][6:].strip() in str(error.value)
        assert promote(site.base, server=site.server) == 2  # the newest that loads
        assert rollback(site.base, server=site.server) == 1
        assert site.ask() == 1
    with site.running():  # a restart finds nothing broken
        found = describe_versions(site.base, site.address)
        assert [version.left_out for version in found] == ["", "", left_out(site.base)[3]]
        result = CliRunner().invoke(app, ["versions", str(site.base), "--server", site.address])
        assert "version 3 is left out of models.config (face: " in result.stderr
        assert "left out" in result.stdout
        with pytest.raises(ExportError, match="cannot load face version 3"):
            promote(site.base, 3, server=site.server)  # still broken; the error is not the old one's
        site.repair(3)
        assert promote(site.base, 3, server=site.server) == 3
        assert left_out(site.base) == {}
        assert [site.ask(model) for model in SERVABLES] == [3, 3, 3]


def test_the_same_garbage_is_refused_again_without_another_attempt(site: Site) -> None:
    site.publish(2)
    site.add(3, broken=True)
    file = site.base / "models.config"
    with site.running():
        texts = []
        for _ in range(2):
            before = file.stat().st_mtime_ns
            with pytest.raises(ExportError, match="cannot load face version 3") as error:
                promote(site.base, 3, server=site.server)
            texts.append(str(error.value))
            written = file.stat().st_mtime_ns != before
        assert texts[0] == texts[1]
        assert not written
        assert [*left_out(site.base)] == [3]
        assert promote(site.base, 2, server=site.server) == 2


@pytest.mark.parametrize("file", ["saved_model.pb", "variables/variables.data-00000-of-00001"])
def test_damage_is_refused_before_the_other_models_are_loaded(site: Site, file: str) -> None:
    if site.numbered:
        pytest.skip("the real server cannot be made slow")
    site.publish(2)
    site.add(3)
    damaged = site.base / "face" / "3" / file
    for folder in (damaged.parent, site.base / "face" / "3" / "assets.extra"):
        folder.mkdir(exist_ok=True)
    if not damaged.exists():
        damaged.write_bytes(b"weights")
    write_checksums(site.base / "face" / "3")
    damaged.write_bytes(b"")
    for model in ("keypoints", "emotion"):
        (site.base / model / "3" / "load_seconds").write_text("20")
    text = (site.base / "models.config").read_text()
    with site.running():
        with pytest.raises(ExportError, match="cannot load face version 3"):
            promote(site.base, 3, server=site.server)
        assert [3 in site.server.states()[model] for model in SERVABLES] == [False, False, True]
    assert (site.base / "models.config").read_text() == text


def test_a_listed_version_that_broke_is_taken_out(site: Site) -> None:
    """As the newest, which nobody promoted."""
    site.publish(2)
    with site.running():
        site.publish(broken=True)
        with pytest.raises(ExportError, match="cannot load face version 3"):
            promote(site.base, 3, server=site.server)
        assert site.listed() == (1,)
        assert promote(site.base, 2, server=site.server) == 2
        assert site.listed() == (2,)
    with site.running():
        assert site.ask() == 2


@pytest.mark.parametrize(
    ("content", "problem"), [(b"", "empty"), (b"garbage", "not a SavedModel"), (None, "No such file or directory")]
)
def test_a_file_that_no_server_can_load_is_told_without_one(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    fake_version(tmp_path / "1")
    assert garbage_of(tmp_path / "1") == ""
    file = tmp_path / "1" / "saved_model.pb"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    assert garbage_of(tmp_path / "1") == f"{file}: {problem}"


@pytest.mark.parametrize(
    ("status", "failed"),
    [
        ({"error_code": "OK", "error_message": ""}, False),
        ({"error_code": "DATA_LOSS", "error_message": "cut off"}, True),
        ({"error_code": "DATA_LOSS", "error_message": ""}, True),
        (None, False),
    ],
)
def test_an_error_without_a_text_is_an_error(
    status: dict[str, str] | None, failed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {"version": "3", "state": "END"} | ({} if status is None else {"status": status})
    monkeypatch.setattr(RestTransport, "status", lambda _: [entry])
    assert WatchedServer("http://127.0.0.1:9").states()["face"][3].failed == failed


@pytest.mark.parametrize("tried_again", ["0", "1"])
def test_a_version_that_was_repaired_while_it_was_listed_is_loaded(
    site: Site, tried_again: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether or not the server itself tries a failed version again."""
    monkeypatch.setenv("TFS_DOUBLE_RELOAD", tried_again)
    site.publish(2)
    with site.running():
        site.publish(broken=True)
        while not site.server.states()["face"].get(3, VersionState("")).failed:
            time.sleep(0.01)
        site.repair(3)
        assert promote(site.base, 3, server=site.server) == 3
        assert (site.ask(), site.labels(), left_out(site.base)) == (3, {"stable": 3}, {})


def test_with_default_flags_the_commands_say_what_blocks(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.publish(3)
    for number in (2, 3):
        promote(site.base, number)
    site.add(4, broken=True)
    with site.running(DEFAULTS):
        assert promote(site.base, 2, server=site.server) == 2  # 3 is kept as the newest
        start = time.monotonic()
        with pytest.raises(ExportError, match=f"cannot load face version 4: .*{NO_RETRIES}"):
            promote(site.base, 4, server=site.server)
        assert rollback(site.base, server=site.server) == 3  # loaded: its label moves at once
        assert site.ask() == 3
        with pytest.raises(ExportError, match=f"version 1 has to wait for face version 4, .*{NO_RETRIES}"):
            promote(site.base, 1, server=site.server)
        assert site.listed() == (3,)
        capsys.readouterr()
        assert prune(site.base, 1, site.server) == [1, 2]
        kept = "still keeps version 2 in memory; face version 4 is LOADING, and a server started without "
        assert kept + NO_RETRIES in capsys.readouterr().err
        assert time.monotonic() - start < 60  # none waited for the time-out of 120 s
    with site.running(DEFAULTS):  # comes up at once
        assert site.ask() == 3


def test_a_slow_load_is_waited_for_and_named(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    if site.numbered:
        pytest.skip("the real server cannot be made slow")
    site.publish(1)
    site.add(2)
    (site.base / "face" / "2" / "load_seconds").write_text("0.6")
    with site.running():
        assert promote(site.base, 2, server=site.server) == 2
    assert "waiting for face version 2, which is LOADING" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["face", "other"])
def test_a_healthy_version_that_loads_longer_is_waited_for(
    site: Site, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if site.numbered:
        pytest.skip("the real server cannot be made slow")
    site.publish(1)
    shutil.copytree(site.base / "face", site.base / "other")
    add_other(site, "model_version_policy { all {} }")
    with site.running():
        site.add(2)
        site.add(3)
        fake_version(site.base / "slow")
        (site.base / "slow" / "hold").touch()
        shutil.rmtree(site.base / "face" / "3")
        (site.base / "slow").rename(site.base / model / "3")
        if model == "face":
            replace_entries(site.base, [replace(c, versions=(1, 3)) for c in read_config(site.base)[:3]])
        while site.server.states([model])[model].get(3, VersionState("")).name != "LOADING":
            time.sleep(0.01)
        text = (site.base / "models.config").read_text()
        with pytest.raises(ExportError, match=f"{model} version 3 is LOADING; give more time with --timeout"):
            promote(site.base, 2, server=replace(site.server, timeout=0.5))
        assert (site.base / "models.config").read_text() == text
        threading.Timer(2, (site.base / model / "3" / "hold").unlink).start()  # after 20 looks of the server
        assert promote(site.base, 2, server=site.server) == 2
        assert f"waiting for {model} version 3, which is LOADING" in capsys.readouterr().err


def test_a_published_version_is_loaded_before_the_newest_is_dropped(site: Site) -> None:
    site.publish(3)
    promote(site.base, 2)
    assert server_of(site.base, "http://127.0.0.1:9") is None
    with site.running():
        site.add(4)
        found = server_of(site.base, site.address)
        assert found is not None
        write_config(site.base, "host", keep_listed=True)
        assert site.listed() == (2, 3, 4)
        load_published(site.base, 4, site.server)
        assert (site.listed(), site.labels(), left_out(site.base)) == ((2, 4), {"stable": 2}, {})
        assert site.ask("face", "") == 4
        site.add(5, broken=True)
        write_config(site.base, "host", keep_listed=True)
        with pytest.raises(ExportError, match="cannot load face version 5: .*left out"):
            load_published(site.base, 5, site.server)
        assert (site.listed(), [*left_out(site.base)]) == ((2, 4), [5])
        assert site.ask("face", "") == 4


def test_a_published_version_that_no_server_follows_is_one_line(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.publish(2)
    shutil.copy(site.base / "models.config", site.base / "elsewhere")
    with site.running(config=site.base / "elsewhere"):
        site.publish(1)
        load_published(site.base, 3, replace(site.server, timeout=10 * site.poll))
    assert "version 3 is published, and loaded when a server follows" in capsys.readouterr().err


def test_a_server_is_not_started_with_garbage(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.publish(3, broken=True)
    assert site.listed() == (1, 3)
    fit_config(site.base)
    assert "version 3 is left out (" in capsys.readouterr().err
    with site.running():
        assert site.ask("face", "") == 1
