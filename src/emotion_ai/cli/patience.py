"""A reader that waits for a server that is away."""

from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_exponential

from emotion_ai.errors import (
    AccessDeniedError,
    ClientError,
    ConnectionSettingsError,
    ModelNotFoundError,
    ServerTimeoutError,
    ServerUnavailableError,
    ServerUnreachableError,
)
from emotion_ai.inference.results import CropReadings, Crops, FaceReading, PhotoReader
from emotion_ai.vision.photo import Photo, Source

SERVER_AWAY = (ServerUnreachableError, ServerUnavailableError, ServerTimeoutError, ModelNotFoundError)
"""Errors that pass when a server comes back, or has loaded its models again."""

NO_ANSWERS = (*SERVER_AWAY, AccessDeniedError)
"""Errors of a server that answers no other photo either; a login or token is given by another start."""

WAIT = 120.0
"""Seconds to wait for a server that has answered before."""

_Result = TypeVar("_Result")


class PatientReader:
    """Reads with another reader; when its server goes away, the request is repeated for a while.

    Args:
        reader: reads photos and crops.
        seconds: to wait; by default `WAIT` once the server has answered, before that not at all.
        say: called with one line when the waiting begins.
    """

    def __init__(self, reader: PhotoReader, seconds: float | None, say: Callable[[str], None]) -> None:
        self._reader, self._seconds, self._say = reader, seconds, say
        self._answered = False

    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of `expressions`."""
        return self._patiently(self._reader.class_names)

    def read(self, photo: Source | Photo) -> list[FaceReading]:
        """The faces of a photo, from left to right."""
        return self._patiently(lambda: self._reader.read(photo))

    def read_crops(self, images: Crops) -> CropReadings:
        """Keypoints and probabilities of crops, in their order."""
        return self._patiently(lambda: self._reader.read_crops(images))

    def _patiently(self, read: Callable[[], _Result]) -> _Result:
        seconds = self._seconds if self._seconds is not None else WAIT if self._answered else 0.0

        def before_sleep(state: RetryCallState) -> None:
            if state.attempt_number == 1 and state.outcome is not None:
                self._say(f"{state.outcome.exception()}; waiting up to {seconds:g} s for the server")

        retrying = Retrying(
            retry=retry_if_exception(
                lambda error: isinstance(error, SERVER_AWAY) and not isinstance(error, ConnectionSettingsError)
            ),
            stop=stop_after_delay(seconds),
            wait=wait_exponential(0.25, max=2.0),
            before_sleep=before_sleep,
            reraise=True,
        )
        try:
            result = retrying(read)
        except ClientError as error:
            self._answered |= not isinstance(error, SERVER_AWAY)
            raise
        self._answered = True
        return result
