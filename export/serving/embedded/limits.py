"""How much the embedded server takes on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Of REST and gRPC each.

    Attributes:
        body: bytes of a request, unpacked.
        pending: requests at once, beyond which they are refused (503, RESOURCE_EXHAUSTED).
        workers: threads that run models.
    """

    body: int = 32 * 2**20
    pending: int = 128
    workers: int = 2
