"""The bundled weights published as two versions, a server, the page as a process of its own, and a browser."""

import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from emotion_ai.contract import TASKS
from emotion_ai_export.convert.graph import to_graph, to_onnx
from emotion_ai_export.convert.parity import Comparison, ParityReport
from emotion_ai_export.convert.saved_model import save_servable
from emotion_ai_export.convert.version_files import SourceNetwork, write_version_files
from emotion_ai_export.registry.model_config import ModelConfig, render
from emotion_ai_export.serving.launch import Addresses, running

BROWSER = shutil.which("chromium")
SECONDS = 120.0
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`face` alone, without the proof that an export makes: stable is version 1, canary and newest 2."""
    base = tmp_path_factory.mktemp("models")
    sources = {task: SourceNetwork.load("bundled", task) for task in TASKS}
    graphs = {task: to_graph(to_onnx(source.network)) for task, source in sources.items()}
    rows = [Comparison("SavedModel", "face", "serving_bytes", "keypoints", "real", n, 3e-5, 1e-4) for n in (1, 7)]
    for number in (1, 2):
        folder = base / "face" / str(number)
        if number == 1:
            save_servable(graphs, "face", folder)
        else:
            shutil.copytree(base / "face" / "1", folder)
        (folder / "assets.extra").mkdir(exist_ok=True)
        write_version_files(folder, "face", sources, {"version": number, **ParityReport(rows).as_dict()})
    configs = [ModelConfig("face", str(base / "face"), (1, 2), {"stable": 1, "canary": 2})]
    (base / "models.config").write_text(render(configs))
    return base


@pytest.fixture(scope="session")
def server(models: Path) -> Iterator[Addresses]:
    with running(models) as addresses:
        yield addresses


@dataclass
class Line:
    """Between the page and the server: it can be cut and mended."""

    target: tuple[str, int]
    port: int = 0
    _sockets: list[socket.socket] = field(default_factory=list)
    _listener: socket.socket | None = None

    def mend(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=[self._listener], daemon=True).start()

    def cut(self) -> None:
        assert self._listener
        self._listener.shutdown(socket.SHUT_RDWR)
        for each in [self._listener, *self._sockets]:
            each.close()
        self._sockets.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                ours = listener.accept()[0]
                theirs = socket.create_connection(self.target)
            except OSError:
                return
            self._sockets += [ours, theirs]
            threading.Thread(target=self._carry, args=[ours, theirs], daemon=True).start()

    def _carry(self, ours: socket.socket, theirs: socket.socket) -> None:
        other = {ours: theirs, theirs: ours}
        try:
            while True:
                for ready in select.select([ours, theirs], [], [])[0]:
                    content = ready.recv(65536)
                    if not content:
                        return
                    other[ready].sendall(content)
        except (OSError, ValueError):
            return
        finally:
            ours.close()
            theirs.close()


@pytest.fixture(scope="session")
def line(server: Addresses) -> Iterator[Line]:
    host, port = server.rest.removeprefix("http://").split(":")
    line = Line((host, int(port)))
    line.mend()
    yield line
    line.cut()


@dataclass(frozen=True)
class Site:
    """A page that runs; `folder` is where its uploads lie."""

    url: str
    folder: Path
    process: "subprocess.Popen[str]"


def start(*arguments: str, timeout: float = 200) -> Site:
    """`emotion-ai web` as people start it."""
    before = set(Path("/dev/shm").glob("emotion-ai-web-*"))
    command = [sys.executable, "-m", "emotion_ai.cli", "web", *arguments, "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    said = []
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and (line := process.stderr.readline()):
        said.append(line)
        if found := re.search(r"the page is at (http://127\.0\.0\.1:\d+)", line):
            (folder,) = set(Path("/dev/shm").glob("emotion-ai-web-*")) - before
            return Site(found[1], folder, process)
    process.kill()
    raise AssertionError("".join(said))


def end(site: Site) -> None:
    site.process.send_signal(signal.SIGTERM)
    said = site.process.communicate(timeout=60)[1]
    assert site.process.returncode == 0, said


@pytest.fixture(scope="session")
def site(models: Path, line: Line) -> Iterator[Site]:
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("no /dev/shm to look for uploads in")
    site = start(str(models), "--server", f"http://127.0.0.1:{line.port}")
    yield site
    end(site)
    assert not site.folder.exists()


@pytest.fixture(scope="session")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Chromium's fake video device shows: a portrait, as Motion JPEG."""
    from PIL import Image

    from emotion_ai.vision.photo import PORTRAITS

    file = tmp_path_factory.mktemp("camera") / "face.mjpeg"
    Image.open(PORTRAITS[0]).convert("RGB").resize((480, 480)).save(file, "JPEG", quality=92)
    return file


@pytest.fixture(scope="session")
def browser(camera: Path) -> Iterator[Browser]:
    if not BROWSER:
        pytest.skip("chromium is not installed: no browser to test with")
    video = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        arguments = [*ARGUMENTS, *video, f"--use-file-for-fake-video-capture={camera}"]
        browser = playwright.chromium.launch(executable_path=BROWSER, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser, site: Site) -> Iterator[Any]:
    """Opens the page in a window of its own; whatever it asks must lie on this machine."""
    asked: list[str] = []
    contexts = []

    def opened(width: int = 1280, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, accept_downloads=True, **options)
        contexts.append(context)
        context.set_default_timeout(SECONDS * 1000)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto(site.url)
        page.get_by_role("button", name="A group").first.wait_for()
        return page

    yield opened
    for context in contexts:
        context.close()
    assert asked
    assert not [url for url in asked if not url.startswith((site.url, "data:", "blob:"))]


@pytest.fixture
def page(open_page: Any) -> Page:
    return open_page()
