"""The outputs of a call's requests, joined into readings that name their classes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from emotion_ai.class_set import ClassSet
from emotion_ai.client.checks import SHAPES, Outputs
from emotion_ai.contract import CLASSES, DEVIATIONS, EMOTIONS, EXPRESSIONS, UNCERTAIN_BELOW
from emotion_ai.errors import ServerFailureError
from emotion_ai.inference.results import CropReadings


def class_names(part: Outputs) -> tuple[str, ...] | None:
    """The classes that a response names, the same for all of its faces; None if it names none."""
    return tuple(part[CLASSES][0].tolist()) if CLASSES in part and len(part[CLASSES]) else None


def is_mixed(parts: Sequence[Outputs]) -> bool:
    """Whether versions with different classes gave the responses."""
    found = {class_names(part) for part in parts if _count(part)}
    return len({EMOTIONS if names is None else names for names in found}) > 1


def joined(parts: Sequence[Outputs]) -> Outputs:
    """The outputs of several requests, in order; without those that one of them lacks, if the version changed."""
    names = [name for name in parts[0] if all(name in part for part in parts)] if parts else []
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def crop_readings(
    parts: Sequence[Outputs], count: int, uncertain_below: float | None, classes: tuple[str, ...] | None = None
) -> CropReadings:
    """Readings of `count` crops from the responses for them, all by versions with the same classes.

    Args:
        parts: outputs by name.
        count: crops.
        uncertain_below: the client's own threshold.
        classes: names of all classes, where the responses do not name them.

    Raises:
        ServerFailureError: there are not as many probabilities as names.
    """
    found = joined(parts)
    known = next((names for part in parts if (names := class_names(part))), None) or classes or EMOTIONS
    if EXPRESSIONS not in found:  # probabilities alone are those of the first classes
        known = known[: ClassSet.of(known).emotions]
    emotions = ClassSet.of(known).emotions
    if "probabilities" in found and found["probabilities"].shape[1] != emotions:
        raise ServerFailureError(f"{found['probabilities'].shape[1]} probabilities of a face for {emotions} classes")
    shape = (count, len(known))
    thresholds = [part.get(UNCERTAIN_BELOW, np.full((_count(part), len(known)), np.nan)) for part in parts]
    if uncertain_below is not None:
        thresholds = [np.full(shape, uncertain_below)]
    empty: NDArray[np.float32] = np.full((count, *SHAPES["keypoints"]), np.nan, np.float32)
    return CropReadings(
        found.get("keypoints", empty),
        found.get("probabilities", np.full((count, emotions), np.nan, np.float32)),
        found.get(DEVIATIONS),
        found.get(EXPRESSIONS),
        np.concatenate([np.zeros((0, len(known))), *(part[:, : len(known)] for part in thresholds)]).astype(np.float32),
        known,
    )


def _count(part: Outputs) -> int:
    return len(next(iter(part.values())))
