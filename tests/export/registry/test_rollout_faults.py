"""Kills, proxies, odd files and clocks: commands beside a server or its double."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from emotion_ai.contract import SERVABLES
from emotion_ai.errors import ConnectionSettingsError, ExportError, ServerUnreachableError
from emotion_ai_export.registry.model_config import parse, read_config, render, replace_entries
from emotion_ai_export.registry.publish import write_config
from emotion_ai_export.registry.rollout import load_published, server_of
from emotion_ai_export.registry.server_record import UNCONFIRMED, leave_out, left_out
from emotion_ai_export.registry.versions import promote, prune
from emotion_ai_export.registry.watched_server import VersionState, WatchedServer, running_server
from tests.export.registry.site import Site


@pytest.mark.timeout(7200)  # 40 of each, beside the real server, take half an hour
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
        try:
            while 2 not in read_config(site.base)[0].versions:
                assert process.poll() is None
                time.sleep(0.01)
            process.terminate()
            _, said = process.communicate(timeout=25)
        finally:
            process.kill()
            process.communicate()
    assert process.returncode == 143, said
    assert b"Traceback" not in said
    assert (site.base / "models.config").read_text() == text
    assert left_out(site.base) == {}


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


def test_a_login_in_a_servers_address_is_never_shown(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.publish(2)
    with site.running("--model_config_file_poll_wait_seconds=0"):  # it never reads the file again: no label moves
        found = server_of(site.base, site.address.replace("//", "//me:s3cret@"))
        assert found is not None
        load_published(site.base, 3, replace(found, timeout=0.2, poll=site.poll))  # there is no version 3
        with pytest.raises(ExportError, match=r"^http://127\.0\.0\.1:") as error:
            promote(site.base, 2, server=replace(found, timeout=-1))
    assert "s3cret" not in capsys.readouterr().err + str(error.value) + repr(found)


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
