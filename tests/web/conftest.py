"""The bundled weights published as two versions, a server, the page in its own process, and a browser."""

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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest
import requests
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from emotion_ai.contract import TASKS
from emotion_ai.vision.photo import PORTRAITS
from emotion_ai_export.convert.graph import to_graph, to_onnx
from emotion_ai_export.convert.parity import Comparison, ParityReport
from emotion_ai_export.convert.saved_model import save_servable
from emotion_ai_export.convert.version_files import SourceNetwork, write_version_files
from emotion_ai_export.registry.model_config import ModelConfig, render
from emotion_ai_export.serving.launch import Addresses, running

BROWSER = shutil.which("chromium")
SECONDS = 60.0
TOO_LARGE = 413
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
    """`face` without its export's parity check: stable is version 1, canary and newest are version 2."""
    base = tmp_path_factory.mktemp("models")
    sources = {task: SourceNetwork.load("bundled", task) for task in TASKS}
    graphs = {task: to_graph(to_onnx(source.network)) for task, source in sources.items()}
    rows = [Comparison("SavedModel", "face", "serving_bytes", "keypoints", "real", n, 3e-5, 1e-4) for n in (1, 7)]
    for number in (1, 2):
        folder = base / "face" / str(number)
        if number == 1:
            save_servable(graphs, "face", folder, classes=sources["emotion"].network.spec.class_set)
        else:
            shutil.copytree(base / "face" / "1", folder)
        (folder / "assets.extra").mkdir(exist_ok=True)
        write_version_files(
            folder, "face", sources, dict.fromkeys(TASKS, {}), {"version": number, **ParityReport(rows).as_dict()}
        )
    configs = [ModelConfig("face", str(base / "face"), (1, 2), {"stable": 1, "canary": 2})]
    (base / "models.config").write_text(render(configs))
    return base


@pytest.fixture(scope="session")
def server(models: Path) -> Iterator[Addresses]:
    with running(models) as addresses:
        yield addresses


@dataclass
class Proxy:
    """Forwards TCP connections to the server; can be stopped and started again on the same port."""

    target: tuple[str, int]
    port: int = 0
    _sockets: list[socket.socket] = field(default_factory=list)
    _listener: socket.socket | None = None

    def start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=[self._listener], daemon=True).start()

    def stop(self) -> None:
        assert self._listener
        self._listener.shutdown(socket.SHUT_RDWR)
        for each in [self._listener, *self._sockets]:
            each.close()
        self._sockets.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client = listener.accept()[0]
                server = socket.create_connection(self.target)
            except OSError:
                return
            self._sockets += [client, server]
            threading.Thread(target=self._forward, args=[client, server], daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        other = {client: server, server: client}
        try:
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    content = ready.recv(65536)
                    if not content:
                        return
                    other[ready].sendall(content)
        except (OSError, ValueError):
            return
        finally:
            client.close()
            server.close()


@pytest.fixture(scope="session")
def proxy(server: Addresses) -> Iterator[Proxy]:
    host, port = server.rest.removeprefix("http://").split(":")
    proxy = Proxy((host, int(port)))
    proxy.start()
    yield proxy
    proxy.stop()


@dataclass(frozen=True)
class Site:
    """A running page.

    Attributes:
        url: its address.
        folder: where its uploads lie.
        process: of `emotion-ai web`.
        upload: a file that was uploaded when it started.
        uploaded: the time of that.
    """

    url: str
    folder: Path
    process: "subprocess.Popen[str]"
    upload: Path
    uploaded: float


def start(*arguments: str, timeout: float = 200) -> Site:
    """Runs `emotion-ai web`."""
    command = [sys.executable, "-m", "emotion_ai.cli", "web", *arguments, "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    lines = []
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and (line := process.stderr.readline()):
        lines.append(line)
        if found := re.search(r"the page is at (http://127\.0\.0\.1:\d+)", line):
            upload, uploaded = _upload(found[1], timeout)
            (folder,) = [parent for parent in upload.parents if parent.name.startswith("emotion-ai-web-")]
            return Site(found[1], folder, process, upload, uploaded)
    process.kill()
    raise AssertionError("".join(lines))


def _upload(url: str, timeout: float) -> tuple[Path, float]:
    """Uploads a file as soon as the page accepts it: its path and time."""
    response = requests.post(f"{url}/gradio_api/upload", files={"files": ("a.png", b"no picture")}, timeout=timeout)
    (path,) = response.json()
    return Path(path), time.time()


def stop(site: Site) -> str:
    """Ends `emotion-ai web` as a service manager would; returns what it wrote to stderr since it started."""
    site.process.send_signal(signal.SIGTERM)
    stderr = site.process.communicate(timeout=60)[1]
    assert site.process.returncode == 0, stderr
    return stderr


@pytest.fixture(scope="session")
def site(models: Path, proxy: Proxy) -> Iterator[Site]:
    site = start(str(models), "--server", f"http://127.0.0.1:{proxy.port}")
    yield site
    stop(site)
    assert not site.folder.exists()


@pytest.fixture(scope="session")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The picture of Chromium's fake camera: a portrait as Motion JPEG."""
    file = tmp_path_factory.mktemp("camera") / "face.mjpeg"
    Image.open(PORTRAITS[0]).convert("RGB").resize((480, 480)).save(file, "JPEG", quality=92)
    return file


@pytest.fixture(scope="module")  # while it is open, its event loop runs
def browser(camera: Path) -> Iterator[Browser]:
    if not BROWSER:
        pytest.skip("chromium is not installed")
    video = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        arguments = [*ARGUMENTS, *video, f"--use-file-for-fake-video-capture={camera}"]
        browser = playwright.chromium.launch(executable_path=BROWSER, args=arguments)
        yield browser
        browser.close()


class OpenPage(Protocol):
    """Opens the page in a new context of the browser."""

    def __call__(self, width: int = 1280, **options: Any) -> Page: ...


@pytest.fixture(scope="module")
def desktop(browser: Browser) -> Iterator[BrowserContext]:
    """Shared by the tests that need no other window, so that the page's scripts are loaded once."""
    with browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True) as context:
        yield context


@pytest.fixture
def open_page(browser: Browser, site: Site) -> Iterator[OpenPage]:
    with ExitStack() as stack:

        def open_in_context(width: int = 1280, **options: Any) -> Page:
            context = stack.enter_context(browser.new_context(viewport={"width": width, "height": 900}, **options))
            return stack.enter_context(_opened(context, site))

        yield open_in_context


@pytest.fixture
def page(desktop: BrowserContext, site: Site) -> Iterator[Page]:
    with _opened(desktop, site) as page:
        yield page


@contextmanager
def _opened(context: BrowserContext, site: Site) -> Iterator[Page]:
    """A window with the page; checks that it requests nothing from other hosts and that none of its requests fails."""
    requested: list[str] = []
    responses: list[tuple[int, str]] = []
    context.set_default_timeout(SECONDS * 1000)
    page = context.new_page()
    page.on("request", lambda request: requested.append(request.url))
    page.on("response", lambda response: responses.append((response.status, response.url)))
    page.goto(site.url)
    page.get_by_role("button", name="A group").first.wait_for()
    yield page
    page.close()
    assert requested
    assert not [url for url in requested if not url.startswith((site.url, "data:", "blob:"))]
    assert not [response for response in responses if response[0] >= 400 and response[0] != TOO_LARGE]
