"""What a client's calls took and returned, for observers such as a log of answers."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from emotion_ai.client.transport import Connection

Method = Literal["read", "read_crops", "predict"]


@dataclass(frozen=True)
class FinishedRequest:
    """One request of a call, with its retries.

    Attributes:
        signature: the requested one.
        faces: inputs in the request.
        seconds: from the first attempt to the whole response, or to the error.
        version: the version that answered, which gRPC names and REST does not; None without an answer.
        error: why it failed, or None. A version that lacks a signature fails the first request of a call.
    """

    signature: str
    faces: int
    seconds: float
    version: int | None = None
    error: BaseException | None = None


@dataclass(frozen=True, eq=False)
class FinishedCall:
    """One call of `read`, `read_crops` or `predict`; the calls that `read` makes itself are part of it.

    Attributes:
        method: the called one.
        connection: the requested model: address without login, model, version, label.
        source: what was given: a photo, crops, or the inputs of `predict`.
        started: seconds since the epoch.
        seconds: for the whole call; of `read`, decoding and detection included.
        requests: in the order in which they ended.
        result: what the method returns: FaceReadings, CropReadings, or outputs by name; None if it failed.
        error: what it raised, or None.
    """

    method: Method
    connection: Connection
    source: Any
    started: float
    seconds: float
    requests: tuple[FinishedRequest, ...]
    result: Any = None
    error: BaseException | None = None


class CallObserver(Protocol):
    """Told of each call once it has ended, in the thread that made it, so by several threads at once."""

    def __call__(self, call: FinishedCall) -> None: ...

    def close(self) -> None:
        """Called when the client is closed."""
        ...


@dataclass
class Call:
    """A call that goes on: its requests so far, and its result once there is one."""

    requests: list[FinishedRequest] = field(default_factory=list)
    result: Any = None

    @contextmanager
    def request(self, signature: str, faces: int) -> Iterator[list[int | None]]:
        """Adds the request that the block makes; the block appends the version that answered."""
        started, versions, failure = time.perf_counter(), list[int | None](), None
        try:
            yield versions
        except BaseException as error:
            failure = error
            raise
        finally:
            seconds = time.perf_counter() - started
            version = versions[-1] if versions else None
            self.requests.append(FinishedRequest(signature, faces, seconds, version, failure))


@contextmanager
def observed(observers: Sequence[CallObserver], connection: Connection, method: Method, source: Any) -> Iterator[Call]:
    """Tells the observers of the call that the block makes."""
    call, started, before, failure = Call(), time.time(), time.perf_counter(), None
    try:
        yield call
    except BaseException as error:
        failure = error
        raise
    finally:
        seconds = time.perf_counter() - before
        result = None if failure else call.result
        for observer in observers:
            observer(FinishedCall(method, connection, source, started, seconds, tuple(call.requests), result, failure))
