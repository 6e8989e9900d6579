"""One client for many threads, several requests of one call at once, and `AsyncFaceClient`."""

import asyncio
import inspect
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import pytest

import emotion_ai
from emotion_ai import errors
from emotion_ai.client import AsyncFaceClient, FaceClient, async_client, protos
from emotion_ai.client.transport import Prediction
from emotion_ai.contract import MEAN_FACE
from tests.client.networks import Fault, Network, refusing_port, silence

CROPS = np.stack([np.full((9, 9), value, np.uint8) for value in range(200)])
BOTH = pytest.mark.parametrize("transport", [0, 1], ids=["REST", "gRPC"])


@dataclass
class Transport:
    """Answers with the length of each file, later requests sooner; counts the requests at once."""

    now: int = 0
    most: int = 0
    sizes: list[int] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    failing: int | None = None

    def predict(self, signature: str, inputs: Any, outputs: tuple[str, ...]) -> Prediction:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            number = len(self.sizes)
            self.sizes.append(len(inputs))
        time.sleep(0.05 - 0.005 * min(number, 9))
        with self.lock:
            self.now -= 1
        if number == self.failing:
            raise errors.ServerFailureError("500, broken")
        points = np.stack([MEAN_FACE] * len(inputs)).astype(np.float32)
        points[:, 0, 0] = [file[-1] if isinstance(file, bytes) else file.mean() for file in inputs]
        return Prediction({"keypoints": points, "probabilities": np.full((len(inputs), 5), 0.2)})

    def close(self) -> None: ...

    metadata = status = close


def client_with(transport: Transport, **settings: Any) -> FaceClient:
    client = FaceClient(signature="serving_default", model="keypoints", **settings)
    client._transport = transport  # type: ignore[assignment]
    return client


@pytest.mark.parametrize("concurrency", [1, 3, 4])
def test_a_call_with_many_crops_keeps_their_order_and_its_bound(concurrency: int) -> None:
    transport = Transport()
    readings = client_with(transport, concurrency=concurrency).read_crops(CROPS)
    assert readings.keypoints[:, 0, 0].tolist() == list(range(200))
    assert sorted(transport.sizes) == [8, *[32] * 6]
    assert transport.most == concurrency


def test_the_first_failure_ends_a_call() -> None:
    transport = Transport(failing=1)
    with pytest.raises(errors.ServerFailureError, match="broken"):
        client_with(transport, concurrency=2).read_crops(np.zeros((32 * 40, 9, 9), np.uint8))
    assert len(transport.sizes) < 10


def test_inputs_of_predict_are_sent_at_once_and_in_order() -> None:
    transport = Transport()
    pixels = np.stack([np.full((96, 96, 1), value % 256, np.float32) for value in range(300)])
    found = client_with(transport).predict(pixels)
    assert found["keypoints"][:, 0, 0].tolist() == [value % 256 for value in range(300)]
    assert 2 <= transport.most <= 4


@BOTH
def test_threads_share_a_client(transport: int, network: Network) -> None:
    """No answer is lost, mixed up or wrong, while the server refuses requests now and then."""
    network.faults = [Fault(429, "full", "RESOURCE_EXHAUSTED")] * 20
    sizes = [1 + number % 7 for number in range(120)]
    with FaceClient(network.both()[transport], signature="serving_bytes") as client, ThreadPoolExecutor(24) as pool:
        found = list(pool.map(lambda size: len(client.predict([b"x"] * size)["keypoints"]), sizes))
        states = list(pool.map(lambda _: client.ready(), range(24)))
    assert found == sizes
    assert all(states)
    assert len(network.headers) == 120 + 20 + 24


def test_threads_keep_no_more_connections_than_they_use_at_once(network: Network) -> None:
    client = FaceClient(network.rest())
    for _ in range(5):
        with ThreadPoolExecutor(3) as pool:
            assert all(pool.map(lambda _: client.ready(), range(9)))
    assert 1 <= len(client._transport._sessions._idle) <= 3  # type: ignore[attr-defined]
    client.close()
    assert not client._transport._sessions._idle  # type: ignore[attr-defined]


def public_methods(kind: type) -> dict[str, inspect.Signature]:
    found = {name: method for name, method in inspect.getmembers(kind, callable) if not name.startswith("_")}
    return {name: inspect.signature(method) for name, method in found.items()}


def test_both_clients_have_the_same_methods_and_arguments() -> None:
    assert public_methods(AsyncFaceClient) == public_methods(FaceClient)
    assert inspect.signature(AsyncFaceClient) == inspect.signature(FaceClient)
    assert all(inspect.iscoroutinefunction(getattr(AsyncFaceClient, name)) for name in public_methods(FaceClient))
    assert emotion_ai.AsyncFaceClient is AsyncFaceClient


@BOTH
def test_awaited_calls_run_at_once(transport: int, network: Network) -> None:
    async def run() -> list[Any]:
        async with AsyncFaceClient(network.both()[transport], signature="serving_bytes", model="face") as client:
            assert await client.ready()
            assert await client.versions() == {1: "AVAILABLE"}
            assert len(await client.read(network.photo)) == 1
            assert (await client.read_crops(CROPS[:3])).keypoints.shape == (3, 15, 2)
            return await asyncio.gather(*(client.predict([b"x"] * size) for size in range(1, 60)))

    found = asyncio.run(run())
    assert [len(outputs["keypoints"]) for outputs in found] == list(range(1, 60))


def test_no_more_calls_than_the_bound_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(async_client, "MAX_CALLS", 5)
    transport = Transport()

    async def run() -> None:
        async with AsyncFaceClient(signature="serving_default", model="keypoints") as client:
            client._client._transport = transport  # type: ignore[assignment]
            await asyncio.gather(*(client.read_crops(CROPS[:1]) for _ in range(30)))

    asyncio.run(run())
    assert transport.most == 5


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_cancelled_calls_end_at_once_and_free_their_places(scheme: str, network: Network) -> None:
    """More calls than there are places are cancelled while the server is silent; later calls get their places."""

    async def run(port: int) -> None:
        async with AsyncFaceClient(f"{scheme}://127.0.0.1:{port}", timeout=30) as client:
            calls = [asyncio.ensure_future(client.status()) for _ in range(2 * async_client.MAX_CALLS)]
            await asyncio.sleep(0.3)
            started = time.monotonic()
            for call in calls:
                call.cancel()
            done = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(result, asyncio.CancelledError) for result in done)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await client.status()
        assert time.monotonic() - started < 3  # `close` waits for the threads

    with silence() as port:
        asyncio.run(run(port))


@BOTH
def test_a_cancelled_call_stops_asking_an_overloaded_server(transport: int, network: Network) -> None:
    network.faults, network.lasting = [Fault(429, "full", "RESOURCE_EXHAUSTED")], True

    async def run() -> None:
        async with AsyncFaceClient(network.both()[transport]) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await client.status()

    started = time.monotonic()
    asyncio.run(run())
    assert time.monotonic() - started < 2
    asked = len(network.headers)
    time.sleep(0.5)
    assert len(network.headers) == asked


def test_closing_ends_calls_that_go_on() -> None:
    async def run(port: int) -> None:
        client = AsyncFaceClient(f"http://127.0.0.1:{port}", timeout=30)
        call = asyncio.ensure_future(client.status())
        await asyncio.sleep(0.2)
        await client.close()
        with pytest.raises(errors.ClientError, match="cancelled"):
            await call
        with pytest.raises(errors.ConfigError, match="the client is closed"):
            await client.status()

    with silence() as port:
        asyncio.run(run(port))


def test_errors_and_several_event_loops() -> None:
    client = AsyncFaceClient(f"http://127.0.0.1:{refusing_port()}", retries=0)
    for _ in range(2):
        assert not asyncio.run(client.ready())
        with pytest.raises(errors.ServerUnreachableError):
            asyncio.run(client.metadata())
    asyncio.run(client.close())
    with pytest.raises(errors.ConfigError):
        AsyncFaceClient("localhost")


def test_no_request_is_lost_to_a_server_with_fewer_threads_than_clients(network: Network) -> None:
    """As TensorFlow Serving does by default, the server refuses at once what it has no thread for."""

    def respond(request: bytes, context: Any) -> bytes:
        time.sleep(0.01)
        status = {"model_version_status": [{"version": 1, "state": 30}]}
        return bytes(protos.GetModelStatusResponse(**status).SerializeToString())

    class Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, call: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(respond)

    server = grpc.server(ThreadPoolExecutor(4), maximum_concurrent_rpcs=4)
    server.add_generic_rpc_handlers([Handlers()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with FaceClient(f"grpc://127.0.0.1:{port}", retries=0) as client, ThreadPoolExecutor(16) as pool:
            refused = [ready for ready in pool.map(lambda _: client.ready(), range(160)) if not ready]
        with FaceClient(f"grpc://127.0.0.1:{port}") as client, ThreadPoolExecutor(16) as pool:
            found = list(pool.map(lambda _: client.versions(), range(320)))
    finally:
        server.stop(None)
    assert refused, "the server refuses none, so the test shows nothing"
    assert found == [{1: "AVAILABLE"}] * 320
