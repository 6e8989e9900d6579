"""Writes what a client's calls return to an `AnswerLog`."""

import copy
import logging
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from emotion_ai.class_set import ClassSet
from emotion_ai.client.answers import class_names
from emotion_ai.client.calls import FinishedCall
from emotion_ai.client.checks import Outputs
from emotion_ai.client.transport import Connection, Transport
from emotion_ai.contract import CLASSES, DEVIATIONS, EMOTIONS, EXPRESSIONS, KEYPOINTS, UNCERTAIN_BELOW
from emotion_ai.inference.answer_log import AnswerLog
from emotion_ai.inference.answer_rows import Answer, FaceAnswers, Origin, crop_files, failure, source_name
from emotion_ai.inference.results import CropReadings, check_crops
from emotion_ai.vision.photo import encode_png

LOOKUP_SECONDS = 2.0
"""Time-out of the request for the version behind a label, or the newest."""

_LOGGER = logging.getLogger("emotion_ai")


class CallLog:
    """A `CallObserver` that logs each call; nothing that goes wrong here reaches the caller.

    Responses over REST do not name the version that answered. With a label, or without a version, the log's thread
    asks for it about once a second, and rows are without a version if it changed in between.

    Args:
        log: a folder, or a log that others use as well and that stays open.
        connection: of the client.
        connect: opens a transport for these requests.

    Raises:
        ConfigError: the folder cannot be written to.
        MissingExtraError: pyarrow is not installed.
    """

    def __init__(
        self,
        log: AnswerLog | str | os.PathLike[str],
        connection: Connection,
        connect: Callable[[Connection], Transport],
    ) -> None:
        self.log, self._shared = (log, True) if isinstance(log, AnswerLog) else (AnswerLog(log), False)
        self._connection, self._connect = _impatient(connection), connect
        self._transport: Transport | None = None
        self._warned = False

    def __call__(self, call: FinishedCall) -> None:
        try:
            self._add(call)
        except Exception as error:  # whatever a caller's strange input does to it
            if not self._warned:
                self._warned = True
                _LOGGER.warning("%s: an answer could not be logged (%r)", self.log.folder, error)

    def close(self) -> None:
        """Writes what is left; closes the log unless others use it as well."""
        self.log.flush() if self._shared else self.log.close()
        if self._transport is not None:
            self._transport.close()

    def _add(self, call: FinishedCall) -> None:
        if call.error is not None and not isinstance(call.error, Exception):
            return  # an interrupt
        versions = {request.version for request in call.requests if request.error is None}
        version = next(iter(versions)) if len(versions) == 1 else None
        origin = Origin(call.connection.model, version, call.connection.label, source_name(call.source))
        answer = Answer(
            origin,
            call.started,
            call.seconds,
            requests=sum(request.seconds for request in call.requests) if call.requests else None,
            faces=None if call.error is not None else _faces(call, self.log.crops),
            error=failure(call.error),
        )
        self.log.add(answer, self._version if versions == {None} else None)

    def _version(self) -> int | None:
        if self._transport is None:
            self._transport = self._connect(self._connection)
        return int(self._transport.metadata()["model_spec"]["version"])


def _faces(call: FinishedCall, keep: bool) -> FaceAnswers | None:
    if call.method == "read":
        return FaceAnswers.of_photo(call.result, crop_files(call.result, call.source) if keep else None)
    if call.method == "read_crops":
        images = check_crops(call.source)
        return FaceAnswers.of_crops(call.result, images, [encode_png(image) for image in images] if keep else None)
    return _predicted(call.result, call.source, keep)


def _predicted(found: Outputs, inputs: Any, keep: bool) -> FaceAnswers | None:
    """The outputs of `predict` for files, of which nothing else is known, or for pixels."""
    if set(found) == {CLASSES}:  # no faces
        return None
    count = len(inputs)
    names = class_names(found) or EMOTIONS
    columns = found["probabilities"].shape[1] if "probabilities" in found else len(EMOTIONS)
    if columns != ClassSet.of(names).emotions:  # of a signature without names
        names = tuple(f"class {number}" for number in range(columns))
    readings = CropReadings(
        found.get("keypoints", np.full((count, len(KEYPOINTS), 2), np.nan, np.float32)),
        found.get("probabilities", np.full((count, len(EMOTIONS)), np.nan, np.float32)),
        found.get(DEVIATIONS),
        found.get(EXPRESSIONS),
        found.get(UNCERTAIN_BELOW),
        names,
    )
    if isinstance(inputs, np.ndarray):
        images = list(np.rint(inputs[..., 0]).clip(0, 255).astype(np.uint8))
        return FaceAnswers.of_crops(readings, images, [encode_png(image) for image in images] if keep else None)
    return FaceAnswers.of_crops(readings, None, list(inputs) if keep else None)


def _impatient(connection: Connection) -> Connection:
    """The same connection with a short time-out and without retries."""
    found = copy.copy(connection)
    object.__setattr__(found, "timeout", (LOOKUP_SECONDS, LOOKUP_SECONDS))
    object.__setattr__(found, "retries", 0)
    return found
