import io
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from emotion_ai.cli import web
from emotion_ai.errors import ConfigError, ExportError
from emotion_ai.terminal import Console


def test_the_bundled_weights_are_published_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMOTION_AI_CACHE", str(tmp_path))
    calls = []

    def export(arguments: list[str], **_: Any) -> "subprocess.CompletedProcess[str]":
        calls.append(arguments)
        if len(calls) == 1:
            return subprocess.CompletedProcess(arguments, 2, "", "a warning\nerror: no space\n")
        folder = Path(next(a for a in arguments if a.startswith("out=")).removeprefix("out='").removesuffix("'"))
        (folder / "face" / "1").mkdir(parents=True)
        return subprocess.CompletedProcess(arguments, 0, "", "")

    monkeypatch.setattr(subprocess, "run", export)
    console = Console(file=io.StringIO())
    with pytest.raises(ExportError, match="no space"):
        web.bundled_models(console)
    folder = web.bundled_models(console)
    assert web.bundled_models(console) == folder
    assert folder.parent == tmp_path
    assert len(calls) == 2


def test_a_folder_without_versions_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="no published versions"),
        web.model_source(tmp_path, None, Console(file=io.StringIO())),
    ):
        pass


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address_is_printed_in_brackets(
    host: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from emotion_ai.web import application

    def run(_source: Any, _folder: Path, listener: socket.socket, *_: Any) -> None:
        address = listener.getsockname()
        socket.create_connection(address[:2], timeout=5).close()
        assert f"the page is at http://[::1]:{address[1]};" in capsys.readouterr().err

    monkeypatch.setattr(application, "run", run)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    web.web(server="http://[::1]:9", host=host, port=0)
