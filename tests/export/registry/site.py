"""A published folder of small versions and a TensorFlow Serving, or its double, that serves it."""

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from emotion_ai.contract import SERVABLES
from emotion_ai_export.registry.model_config import parse, read_config, render
from emotion_ai_export.registry.publish import next_version, publisher, put_in_place, write_config
from emotion_ai_export.registry.watched_server import WatchedServer
from emotion_ai_export.serving.launch import free_port
from tests.export.serving_double.saved_models import fake_version

POLLING = ("--model_config_file_poll_wait_seconds=1", "--allow_version_labels_for_unavailable_models")
NO_RETRIES = "--max_num_load_retries=0"


@dataclass
class Site:
    """Attributes:
    base: the published folder.
    binary: tensorflow_model_server, or its double.
    numbered: SavedModels that return their number, for the real server.
    poll: seconds between two looks of the server at its files.
    """

    base: Path
    binary: Path
    numbered: Path | None
    poll: float
    port: int = 0

    def publish(self, count: int = 1, broken: bool = False) -> int:
        """Publishes versions; returns the last one's number. The last `face` is garbage if `broken`."""
        for _ in range(count):
            with publisher(self.base) as staging:
                number = next_version(self.base)
                for model in SERVABLES:
                    if self.numbered:
                        shutil.copytree(self.numbered / str(number), staging / model)
                    else:
                        fake_version(staging / model)
                put_in_place(staging, self.base, number)
                write_config(self.base, "host")
        if broken:
            (self.base / "face" / str(number) / "saved_model.pb").write_bytes(b"garbage")
        return number

    def add(self, number: int, broken: bool = False) -> None:
        """Adds a version that models.config does not list, as by hand."""
        for model in SERVABLES:
            if self.numbered:
                shutil.copytree(self.numbered / str(number), self.base / model / str(number))
            else:
                fake_version(self.base / model / str(number))
        if broken:
            (self.base / "face" / str(number) / "saved_model.pb").write_bytes(b"garbage")

    def repair(self, number: int) -> None:
        """Replaces the garbage."""
        target = self.base / "face" / str(number)
        shutil.copy(self.base / "keypoints" / str(number) / "saved_model.pb", target / "saved_model.pb")

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def server(self) -> WatchedServer:
        return WatchedServer(self.address, timeout=30, poll=self.poll)

    @contextmanager
    def running(self, *flags: str, config: Path | None = None) -> Iterator["Site"]:
        """The server, on rendered flags or others; it must come up."""
        self.port = free_port()
        ports = [f"--port={free_port()}", f"--rest_api_port={self.port}"]
        file = f"--model_config_file={config or self.base / 'models.config'}"
        with (self.base / f".server-{self.port}.log").open("wb") as log:
            command = [str(self.binary), *ports, file, *POLLING, *(flags or (NO_RETRIES,))]
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 60
            while not self._answers():
                text = (self.base / f".server-{self.port}.log").read_text(errors="replace")[-1000:]
                assert process.poll() is None, text
                assert time.monotonic() < deadline, text
                time.sleep(0.02)
            yield self
        finally:
            process.kill()
            process.wait()

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.address}/v1/models/face", timeout=5).ok
        except requests.ConnectionError:
            return False

    def ask(self, model: str = "face", path: str = "/labels/stable") -> Any:
        """The number of the version that answers, or the error."""
        url = f"{self.address}/v1/models/{model}{path}:predict"
        found = requests.post(url, json={"instances": [0.0]}, timeout=30)
        if not found.ok:
            return found.text
        answer = found.json()["predictions"][0]
        while isinstance(answer, dict | list):
            answer = next(iter(answer.values())) if isinstance(answer, dict) else answer[0]
        return answer

    def labels(self) -> dict[str, int]:
        """In models.config, where all models have the same."""
        found = [config.labels for config in read_config(self.base) if config.name in SERVABLES]
        assert found == found[:1] * len(SERVABLES)
        return found[0]

    def listed(self) -> tuple[int, ...]:
        """The versions in models.config, where all models have the same."""
        found = [config.versions for config in read_config(self.base) if config.name in SERVABLES]
        assert found == found[:1] * len(SERVABLES)
        return found[0]


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


def add_other(site: Site, rest: str, folder: str = "other") -> None:
    """Replaces the entry of a fourth model, `other`, by hand."""
    ours = [config for config in read_config(site.base) if config.name in SERVABLES]
    text = f'model_config_list {{ config {{ name: "other" base_path: "{site.base}/{folder}" {rest} }} }}'
    partial = site.base / "partial"
    partial.write_text(render([*ours, *parse(text)]))
    partial.rename(site.base / "models.config")
