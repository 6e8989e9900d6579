"""Which signature a client requests: the fullest that the served version has."""

import time
from collections.abc import Callable
from typing import Generic, TypeVar

from emotion_ai.contract import (
    BYTES_SIGNATURE,
    CLASSES_SIGNATURE,
    FULL_SIGNATURE,
    INPUTS,
    UNCERTAINTY_SIGNATURE,
    Servable,
    outputs,
)
from emotion_ai.errors import ConfigError, RequestRejectedError

RECHECK_SECONDS = 5.0
"""How long a version behind a label, or the newest, is taken to lack a signature that it lacked before."""

Answer = TypeVar("Answer")


class SignatureChooser(Generic[Answer]):
    """Requests the fullest signature, and older ones from a version that lacks it.

    What a version lacks is remembered: for good if the version's number is given, otherwise for `RECHECK_SECONDS`,
    since a label moves and newer versions appear.

    Args:
        model: the served model.
        fixed: the version cannot change.
    """

    def __init__(self, model: Servable, fixed: bool) -> None:
        names = (FULL_SIGNATURE, UNCERTAINTY_SIGNATURE, BYTES_SIGNATURE)
        self._names = [name for name in names if outputs(model, name)]
        self._fixed = fixed
        self._remembered = (0, 0.0)  # which name to start with, and until when; replaced as a whole, for threads

    def request(self, send: Callable[[str], Answer]) -> Answer:
        """The answer of `send`, called with a signature that the version has.

        Raises:
            ClientError: from `send`.
        """
        position, until = self._remembered
        start = position if self._fixed or time.monotonic() < until else 0
        lacking: RequestRejectedError | None = None
        for position in (*range(start, len(self._names)), *range(start)):
            try:
                answer = send(self._names[position])
            except RequestRejectedError as error:
                if not is_unknown_signature(self._names[position], error):
                    raise
                lacking = error
                continue
            if lacking is not None:
                self._remembered = (position, time.monotonic() + RECHECK_SECONDS)
            elif start == 0:
                self._remembered = (0, 0.0)
            return answer
        assert lacking is not None
        raise lacking


def check_signature(model: Servable, signature: str, crops: bool = True) -> None:
    """Raises:
    ConfigError: the contract's model has no such signature, or none that takes crops.
    """
    known = [name for name in INPUTS if outputs(model, name) and (not crops or name != CLASSES_SIGNATURE)]
    if signature not in known:
        raise ConfigError(f"`signature` of {model} must be one of {', '.join(known)}, got {signature!r}")


def is_unknown_signature(signature: str, error: RequestRejectedError) -> bool:
    """Whether the server has no such signature; REST and gRPC word it differently."""
    return any(f'{start}"{signature}" not found' in str(error) for start in ("signature name: ", "signature key "))
