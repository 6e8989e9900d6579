"""`AsyncFaceClient`: `FaceClient` for asyncio."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from emotion_ai.client.deadline import Cancellation
from emotion_ai.client.face_client import FaceClient
from emotion_ai.client.transport import Connection
from emotion_ai.errors import ConfigError

MAX_CALLS = 32
"""Calls of one client at once; others wait until one has ended."""

P = ParamSpec("P")
Result = TypeVar("Result")


def _asynchronous(
    method: Callable[Concatenate[FaceClient, P], Result],
) -> Callable[Concatenate["AsyncFaceClient", P], Coroutine[Any, Any, Result]]:
    """The same method, to be awaited."""

    @wraps(method)
    async def call(self: "AsyncFaceClient", /, *args: P.args, **settings: P.kwargs) -> Result:
        return await self._run(partial(method, self._client, *args, **settings))

    return call


def _with_arguments_of(
    _: Callable[P, FaceClient],
) -> Callable[[Callable[..., None]], Callable[Concatenate[Any, P], None]]:
    return wraps(FaceClient.__init__)


class AsyncFaceClient:
    """`FaceClient` for asyncio: the same arguments and methods, awaited, and `async with`.

    At most `MAX_CALLS` calls run at once, in threads; each sends at most `concurrency` requests at once. Cancelling a
    task ends its requests, so `asyncio.timeout` bounds a call as a whole. `close` ends the calls that go on: they
    raise ClientError.
    """

    @_with_arguments_of(FaceClient)
    def __init__(self, *args: Any, **settings: Any) -> None:
        self._client = FaceClient(*args, **settings)
        self._executor = ThreadPoolExecutor(MAX_CALLS, "emotion-ai-client")
        self._cancellation = Cancellation()

    @property
    def connection(self) -> Connection:
        """The served model, and how it is reached."""
        return self._client.connection

    read = _asynchronous(FaceClient.read)
    read_crops = _asynchronous(FaceClient.read_crops)
    class_names = _asynchronous(FaceClient.class_names)
    predict = _asynchronous(FaceClient.predict)
    metadata = _asynchronous(FaceClient.metadata)
    status = _asynchronous(FaceClient.status)
    versions = _asynchronous(FaceClient.versions)
    ready = _asynchronous(FaceClient.ready)

    async def close(self) -> None:
        """Closes the connections."""
        self._cancellation.cancel()
        await asyncio.to_thread(self._executor.shutdown)
        await asyncio.to_thread(self._client.close)  # a log writes what is left

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, call: Callable[[], Result]) -> Result:
        if self._cancellation.cancelled:
            raise ConfigError(f"{self.connection.url}: the client is closed; create another one")
        cancellation = Cancellation(self._cancellation)

        def work() -> Result:
            with cancellation.active():
                return call()

        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except asyncio.CancelledError:
            cancellation.cancel()
            raise
