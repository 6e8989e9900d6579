"""Further attempts of a request that fails for a while: exponential backoff with full jitter, within its time-out."""

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from emotion_ai.client.deadline import Deadline
from emotion_ai.client.failures import TransientError
from emotion_ai.errors import ServerTimeoutError

RETRIES_WITHOUT_CONNECTION = 2
"""Further attempts, by default, where no connection can be made or it breaks."""

_BACKOFF = wait_random_exponential(multiplier=0.2, max=2.0)  # seconds: up to 0.2, 0.4, 0.8, 1.6, 2, 2, ...

_LEAST = 0.05
"""Seconds that must be left for another attempt."""

Result = TypeVar("Result")


def with_retries(attempt: Callable[[], Result], retries: int | None, deadline: Deadline) -> Result:
    """The result of the first attempt that succeeds.

    Predictions change nothing on a server, so every request may be repeated. A server that asks to wait longer than
    the time that is left gets no further attempt, nor does one that takes too long.

    Args:
        attempt: makes the request; raises TransientError if another attempt may succeed.
        retries: further attempts at most; by default, until the deadline if the server is overloaded, and
            `RETRIES_WITHOUT_CONNECTION` if there is no connection.
        deadline: of all attempts together.

    Raises:
        TransientError: of the last attempt.
        ClientError: from `attempt`.
    """

    def stop(state: RetryCallState) -> bool:
        failed = _failure(state)
        if isinstance(failed.error, ServerTimeoutError):
            return True
        limit = retries if retries is not None else None if failed.overloaded else RETRIES_WITHOUT_CONNECTION
        late = deadline.passed + state.upcoming_sleep > deadline.seconds - _LEAST
        return late or (limit is not None and state.attempt_number > limit)

    def wait(state: RetryCallState) -> float:
        asked = _failure(state).retry_after
        left = deadline.seconds - deadline.passed - asked
        return asked + min(_BACKOFF(state), max(left, 0.0) / 2)  # a long draw must not end the attempts early

    retrying = Retrying(
        retry=retry_if_exception_type(TransientError), stop=stop, wait=wait, sleep=deadline.sleep, reraise=True
    )
    return retrying(attempt)


def seconds_to_wait(retry_after: str | None) -> float:
    """The seconds in a Retry-After header, which has a number or a date; 0 for anything else."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return max(0.0, (until - datetime.now(UTC)).total_seconds()) if until.tzinfo else 0.0


def _failure(state: RetryCallState) -> TransientError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, TransientError)
    return error
