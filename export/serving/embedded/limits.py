"""Limits of the embedded server."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of REST and of gRPC, each.

    Attributes:
        body: bytes of a request, decompressed.
        pending: requests at once; more are rejected (503, RESOURCE_EXHAUSTED).
        workers: threads that run models.
    """

    body: int = 32 * 2**20
    pending: int = 128
    workers: int = 2
