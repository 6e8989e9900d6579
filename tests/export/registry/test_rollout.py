"""Commands beside a server that loads, rejects and lags as TensorFlow Serving does: its double, or the real one."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from emotion_ai.cli import app
from emotion_ai.client.rest import RestTransport
from emotion_ai.contract import SERVABLES
from emotion_ai.errors import ConnectionSettingsError, ExportError, ServerUnreachableError
from emotion_ai.published import list_versions
from emotion_ai_export.registry.fitting import fit_config
from emotion_ai_export.registry.listing import describe_versions
from emotion_ai_export.registry.loading import garbage_of
from emotion_ai_export.registry.model_config import ModelConfig, parse, read_config, render, replace_entries
from emotion_ai_export.registry.publish import write_checksums, write_config
from emotion_ai_export.registry.rollout import load_published, server_of
from emotion_ai_export.registry.server_record import UNCONFIRMED, leave_out, left_out
from emotion_ai_export.registry.staging import locked
from emotion_ai_export.registry.versions import promote, prune, rollback
from emotion_ai_export.registry.watched_server import VersionState, WatchedServer, running_server
from emotion_ai_export.serving.engines import ServerOptions, binary_command
from tests.export.registry.site import NO_RETRIES, Site
from tests.export.serving_double.saved_models import fake_version

DEFAULTS = "--max_num_load_retries=5"  # as without the flag


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from emotion_ai_export.convert.frameworks import tf
    from tests.export.registry.test_versions import Number

    folder, model = tmp_path_factory.mktemp("numbered"), Number()
    for number in range(1, 8):
        model.number.assign(number)
        tf.saved_model.save(model, str(folder / str(number)), signatures={"serving_default": model.call})
    return folder


@pytest.fixture(params=["double", "real"])
def site(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    if request.param == "real":
        if not os.environ.get("TFS_BIN"):
            pytest.skip("TFS_BIN is not set: no real TensorFlow Serving")
        return Site(tmp_path / "models", Path(os.environ["TFS_BIN"]), request.getfixturevalue("numbered"), 1.0)
    monkeypatch.setattr("os.fsync", lambda _: None)
    monkeypatch.setenv("TFS_DOUBLE_SCALE", "0.1")
    return Site(tmp_path / "models", request.getfixturevalue("double"), None, 0.1)


@contextmanager
def asking(site: Site, allowed: set[int]) -> Iterator[None]:
    """Keeps asking each model's stable version; an answer other than the allowed ones fails the test."""
    done, wrong = threading.Event(), []

    def ask(model: str) -> None:
        while not done.is_set():
            if (answer := site.ask(model)) not in allowed:
                wrong.append((model, answer))

    threads = [threading.Thread(target=ask, args=(model,)) for model in SERVABLES]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not wrong[:3]


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


def test_a_login_in_a_servers_address_is_never_shown(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.publish(2)
    poll, site.poll = site.poll, 60  # so that the label does not move before the first look
    with site.running():
        found = server_of(site.base, site.address.replace("//", "//me:s3cret@"))
        assert found is not None
        load_published(site.base, 3, replace(found, timeout=0.2, poll=poll))  # there is no version 3
        with pytest.raises(ExportError, match=r"^http://127\.0\.0\.1:") as error:
            promote(site.base, 2, server=replace(found, timeout=-1))
    assert "s3cret" not in capsys.readouterr().err + str(error.value) + repr(found)


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


def test_a_promotion_that_is_terminated_changes_nothing(site: Site) -> None:
    """As by the time limit of a job."""
    if site.numbered:
        pytest.skip("the real server cannot be made slow")
    site.publish(1)
    site.add(2)
    (site.base / "face" / "2" / "load_seconds").write_text("30")
    text = (site.base / "models.config").read_text()
    command = [sys.executable, "-m", "emotion_ai.cli", "promote", str(site.base), "2", "--server"]
    with site.running():
        process = subprocess.Popen([*command, site.address], stderr=subprocess.PIPE)
        while 2 not in read_config(site.base)[0].versions:
            assert process.poll() is None
            time.sleep(0.01)
        process.terminate()
        _, said = process.communicate(timeout=10)
    assert process.returncode == 143, said
    assert b"Traceback" not in said
    assert (site.base / "models.config").read_text() == text
    assert left_out(site.base) == {}


LABEL = 'version_labels { key: "mine" value: %d }'


def add_other(site: Site, rest: str, folder: str = "other") -> None:
    """Replaces the entry of a fourth model, `other`, by hand."""
    ours = [config for config in read_config(site.base) if config.name in SERVABLES]
    text = f'model_config_list {{ config {{ name: "other" base_path: "{site.base}/{folder}" {rest} }} }}'
    partial = site.base / "partial"
    partial.write_text(render([*ours, *parse(text)]))
    partial.rename(site.base / "models.config")


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


def test_entries_that_are_not_ours_stay_as_they_are(site: Site) -> None:
    site.publish(2)
    site.add(3, broken=True)
    shutil.copytree(site.base / "face", site.base / "other")
    file = site.base / "models.config"
    text = f'name: "other" base_path: "{site.base}/other" model_platform: "tensorflow" '
    if not site.numbered:  # the released server was built without loggers, and refuses the field
        text += "logging_config { sampling_config { sampling_rate: 0.5 } } "
    text += "model_version_policy { specific { versions: 1 } }"
    fourth = parse(f"model_config_list {{ config {{ {text} }} }}")
    file.write_text(render([*read_config(site.base), *fourth]).replace("model_platform", "# kept\n model_platform"))
    text = file.read_text()
    with site.running():
        with pytest.raises(ExportError):
            promote(site.base, 3, server=site.server)
        assert file.read_text() == text
        promote(site.base, 2, server=site.server)
        write_config(site.base, "host")
        assert read_config(site.base)[-1] == fourth[0]
        assert file.read_text().count("# kept") == 1  # of the other entry; ours were rewritten
        assert site.numbered or "sampling_rate: 0.5" in file.read_text()
        assert site.ask("other", "") == 1


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


def test_a_change_keeps_the_files_permissions(tmp_path: Path) -> None:
    """The server may run as another user."""
    site = Site(tmp_path / "models", Path(), None, 1)
    site.publish(2)
    file = site.base / "models.config"
    file.chmod(0o644)
    before = os.umask(0o077)
    try:
        promote(site.base, 2)
        write_config(site.base, "host")
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o644


def test_a_file_with_an_old_date_is_not_taken_for_an_old_file(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a copy from a backup has it, or a file system of another machine, whose clock is late."""
    site.publish(2)
    with site.running():
        file = site.base / "models.config"
        shutil.copy(file, site.base / "backup")
        os.utime(site.base / "backup", (1, 1))
        (site.base / "backup").rename(file)
        slept, sleep = [], time.sleep

        def noted(seconds: float) -> None:
            slept.append(seconds)
            sleep(seconds)

        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + 3600)
        monkeypatch.setattr(time, "sleep", noted)
        prune(site.base, 1, replace(site.server, poll=0.2))
    assert max(slept) > 0.3


def test_without_a_server_a_killed_promotion_is_taken_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise a server that is started again might find a version that it cannot load, and end."""
    site = Site(tmp_path / "models", Path(), None, 1)
    site.publish(2)
    text = (site.base / "models.config").read_text()
    away = WatchedServer("http://127.0.0.1:9")
    with pytest.raises(ServerUnreachableError):
        promote(site.base, 1, server=away)
    assert (site.base / "models.config").read_text() == text
    site.add(3, broken=True)
    replace_entries(site.base, [replace(c, versions=(1, 2, 3)) for c in read_config(site.base)])
    leave_out(site.base, 3, UNCONFIRMED)
    with pytest.raises(ServerUnreachableError):
        promote(site.base, 1, server=away)
    assert site.listed() == (1, 2)
    assert "version 3, which no server has loaded, is left out" in capsys.readouterr().err


def test_requests_that_a_proxy_rejects_for_a_while_are_repeated() -> None:
    refused = [3]
    entries = [{"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}]

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            refused[0] -= 1
            body = b"<html>" if refused[0] >= 0 else json.dumps({"model_version_status": entries}).encode()
            self.send_response(429 if refused[0] >= 0 else 200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{proxy.server_port}"
        found = {model: {1: VersionState("AVAILABLE")} for model in SERVABLES}
        assert WatchedServer(address).states() == found
        refused[0] = 3
        assert running_server(address) == found
        with pytest.raises(ConnectionSettingsError, match="speaks no TLS"):
            running_server(address.replace("http", "https"))
        proxy.shutdown()


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


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"left_out": {"x": ""}}', '{"labels": {"stable": "1"}, "left_out": {}}', '{"labels": {}}']
)
def test_a_record_that_is_none_is_one_line(tmp_path: Path, content: str) -> None:
    site = Site(tmp_path / "models", Path(), None, 1)
    site.publish(2)
    (site.base / ".server.json").write_text(content)
    with pytest.raises(ExportError, match=r"\.server\.json: .*; delete it"):
        promote(site.base, 2)
    (site.base / ".server.json").unlink()
    assert promote(site.base, 2) == 2


def test_kills_at_any_time_leave_folder_and_server_usable(site: Site) -> None:
    kills = 40 if site.numbered else 2
    site.publish(5)
    promote(site.base, 2)
    promote(site.base, 3, "canary")
    with site.running():
        command = [sys.executable, "-m", "tests.export.registry.served_kills", str(site.base), site.address]
        done = subprocess.run([*command, str(site.poll), str(kills)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    counts = dict(line.split() for line in done.stdout.splitlines())
    assert counts == dict.fromkeys(("promote", "rollback", "prune", "export"), str(kills))


def test_a_server_is_not_started_with_garbage(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.publish(3, broken=True)
    assert site.listed() == (1, 3)
    fit_config(site.base)
    assert "version 3 is left out (" in capsys.readouterr().err
    with site.running():
        assert site.ask("face", "") == 1


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
