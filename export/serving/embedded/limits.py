"""Limits of the embedded server."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of REST and of gRPC, each.

    Attributes:
        body: bytes of a request, decompressed.
        pending: requests at once; more are rejected (503, RESOURCE_EXHAUSTED).
        workers: threads that run models.
        connections: at once, of REST.
        receive: seconds from the first byte of a request to its last; slower ones are closed (408).
        respond: seconds from then until the client has read the response.
        run: seconds that a request waits for a worker and that a model runs, each (504).
    """

    body: int = 32 * 2**20
    pending: int = 128
    workers: int = 2
    connections: int = 512
    receive: float = 10.0
    respond: float = 90.0
    run: float = 30.0
