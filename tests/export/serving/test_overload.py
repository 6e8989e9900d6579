"""More clients than the server has threads for; the test double stands in where there is no TensorFlow Serving."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from emotion_ai.client import FaceClient
from emotion_ai.contract import SERVABLES
from emotion_ai.errors import ClientError
from emotion_ai_export.bench.request_encodings import request_encodings
from emotion_ai_export.registry.model_config import ModelConfig, render
from emotion_ai_export.serving.launch import Addresses, ServerProcess, free_port, running
from tests.export.serving_double.saved_models import fake_servables

CROP = np.random.default_rng(0).integers(0, 256, (1, 96, 96), np.uint8)


@dataclass(frozen=True)
class Overloaded:
    """Models, and how many requests are sent to them."""

    base: Path
    requests: int

    @contextmanager
    def with_default_flags(self) -> Iterator[Addresses]:
        rest, rpc = free_port(), free_port()
        ports = [f"--rest_api_port={rest}", f"--port={rpc}"]
        log = self.base / "log"
        with log.open("wb") as stream:
            command = [os.environ["TFS_BIN"], *ports, f"--model_config_file={self.base}/models.config"]
            process = subprocess.Popen(command, stdout=stream, stderr=stream)
        server = ServerProcess(f"http://127.0.0.1:{rest}", process, log)
        try:
            server.wait_available(dict.fromkeys(SERVABLES, {"1"}), 120)
            yield Addresses(server.url, f"grpc://127.0.0.1:{rpc}")
        finally:
            server.end()


@pytest.fixture(scope="module", params=["double", "tensorflow-serving"])
def overloaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Overloaded]:
    base = tmp_path_factory.mktemp("overloaded")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "double":
            fake_servables(base, 1)
            patch.setenv("TFS_BIN", str(request.getfixturevalue("double")))
            patch.setenv("TFS_DOUBLE_SCALE", "0.05")
            patch.setenv("TFS_DOUBLE_PREDICT_SECONDS", "0.02")
        elif os.environ.get("TFS_BIN"):
            for name, folder in request.getfixturevalue("folders").items():
                shutil.copytree(folder, base / name / "1")
        else:
            pytest.skip("TFS_BIN is not set: no real TensorFlow Serving")
        configs = [ModelConfig(name, str(base / name), (1,)) for name in SERVABLES]
        (base / "models.config").write_text(render(configs))
        yield Overloaded(base, 400 if request.param == "double" else 2000)


def rejected(addresses: Addresses, clients: int, requests: int) -> int:
    """Requests that failed, of clients without retries."""
    host_port = addresses.grpc.removeprefix("grpc://")
    encoding = next(each for each in request_encodings(addresses.rest, host_port) if each.name == "gRPC, JPEG")

    def send_requests(count: int) -> int:
        with encoding.connect() as send:
            return sum(not send() for _ in range(count))

    with ThreadPoolExecutor(clients) as pool:
        counts = [requests // clients + (client < requests % clients) for client in range(clients)]
        return sum(pool.map(send_requests, counts))


def test_our_flags_reject_no_request_of_32_grpc_clients(overloaded: Overloaded) -> None:
    with running(overloaded.base, engine="tensorflow-serving") as addresses:
        assert rejected(addresses, 32, overloaded.requests) == 0


def test_default_flags_reject_requests_and_face_client_loses_none(overloaded: Overloaded) -> None:
    def read(client: FaceClient) -> str:
        try:
            assert len(client.read_crops(CROP).keypoints) == 1
        except ClientError as error:
            return str(error)
        return ""

    def read_many(count: int) -> list[str]:
        with FaceClient(addresses.grpc, timeout=60) as client:
            return [error for _ in range(count) if (error := read(client))]

    with overloaded.with_default_flags() as addresses:
        assert rejected(addresses, 16, 160) > 0
        with ThreadPoolExecutor(16) as pool:
            failed = [error for errors in pool.map(read_many, [overloaded.requests // 16] * 16) for error in errors]
    assert not failed
