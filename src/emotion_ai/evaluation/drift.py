"""Whether answers are distributed as those of a reference: classes, confidence, and the quality of the crops.

A measure has drifted if its difference is both significant and large. The difference is the share of the faces that
would have to change to turn one distribution into the other, or at least that: total variation distance between the
shares of the classes, Kolmogorov-Smirnov distance between numbers. Its p-value comes from a bootstrap that resamples
groups of faces in both samples, centred so that it shows what chance alone does (Hall and Wilson 1991,
doi:10.2307/2532163), and is corrected for the number of measures after Holm (1979).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from emotion_ai.errors import ConfigError, DataError
from emotion_ai.evaluation.answers import MEASURES, AnsweredFaces
from emotion_ai.evaluation.statistics import holm

ANSWERS = "answers"
"""The measure of the classes' shares."""

MIN_FACES, MIN_GROUPS = 50, 10
MAX_GROUPS = 5_000
"""Of groups with several faces; of more, this number is drawn."""

SAMPLED = ("brightness", "contrast", "sharpness")
"""Measures that a busy client takes of some faces only."""

RESAMPLES = 2_000
_BINS = 50
_CHUNK = 250  # resamples at once


@dataclass(frozen=True)
class DriftTest:
    """When to alarm.

    Attributes:
        false_alarms: the probability of an alarm where nothing has changed, over all measures together.
        min_difference: the smallest difference that counts, however certain it is.
        measures: names, "answers" or of `MEASURES`; those that the reference lacks are left out.
        seed: of the resamples.

    Raises:
        ConfigError: a value out of range, or an unknown measure.
    """

    false_alarms: float = 0.01
    min_difference: float = 0.08
    measures: Sequence[str] = (ANSWERS, *MEASURES)
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.005 <= self.false_alarms <= 0.5:
            raise ConfigError(f"`false_alarms` must be between 0.005 and 0.5, got {self.false_alarms:g}")
        if not 0 <= self.min_difference < 1:
            raise ConfigError(f"`min_difference` must be at least 0 and below 1, got {self.min_difference:g}")
        if unknown := [name for name in self.measures if name not in (ANSWERS, *MEASURES)]:
            raise ConfigError(f"measure {unknown[0]!r} must be one of {', '.join((ANSWERS, *MEASURES))}")


@dataclass(frozen=True)
class Difference:
    """How one measure differs.

    Attributes:
        measure: its name.
        value: the distance of the distributions, 0 to 1.
        p: corrected for the number of measures.
        reference: of numbers the median; of the answers the share of the class that changed most.
        log: the same.
        what: that class, or "median".
        drifted: significant and large.
    """

    measure: str
    value: float
    p: float
    reference: float
    log: float
    what: str
    drifted: bool = False


@dataclass(frozen=True)
class Drift:
    """The differences by measure, how many faces and groups were compared, and measures that were not."""

    differences: tuple[Difference, ...]
    faces: tuple[int, int]
    groups: tuple[int, int]
    left_out: tuple[str, ...] = ()

    @property
    def alarm(self) -> bool:
        """Whether any measure has drifted."""
        return any(difference.drifted for difference in self.differences)


def compare(reference: AnsweredFaces, log: AnsweredFaces, test: DriftTest) -> Drift:
    """Compares a log with a reference.

    Raises:
        DataError: too few faces or groups, no measure that both have, or one that more faces of the log lack than of
            the reference, whose absence would hide a change.
    """
    rng = np.random.default_rng(test.seed)
    samples = [_checked(sample, rng) for sample in (reference, log)]
    found, left_out = [], []
    for name in test.measures:
        values = [_values(sample, name) for sample in samples]
        if len(values[0]) < MIN_FACES:
            left_out.append(name)
            continue
        before, now = (1 - len(known) / len(sample) for known, sample in zip(values, samples, strict=True))
        if len(values[1]) < MIN_FACES or (name not in SAMPLED and now - before > test.min_difference):
            others = [other for other in test.measures if other != name]
            raise DataError(
                f"{log.path}: {now:.0%} of its faces have no {name}, but {before:.0%} of the reference's; log with the "
                "model and the client of the reference, or compare without it"
                + (f": {' '.join(f'--measure {other}' for other in others)}" if others else "")
            )
        found.append(_difference(name, values, [_groups(sample, name) for sample in samples], rng))
    if not found:
        raise DataError(
            f"{reference.path}: no measure of {', '.join(test.measures)} has {MIN_FACES} values; give another "
            "reference, of the same model"
        )
    corrected = holm([difference.p for difference in found])
    differences = tuple(
        replace(d, p=p, drifted=p <= test.false_alarms and d.value >= test.min_difference)
        for d, p in zip(found, corrected, strict=True)
    )
    first, second = samples
    return Drift(differences, (len(first), len(second)), (_count(first.groups), _count(second.groups)), tuple(left_out))


def class_shares(sample: AnsweredFaces) -> dict[str, float]:
    """The share of each class among the answers, by name."""
    names, counts = np.unique(_values(sample, ANSWERS).astype(str), return_counts=True)
    return dict(zip(names.tolist(), (counts / counts.sum()).tolist(), strict=True))


def _checked(sample: AnsweredFaces, rng: np.random.Generator) -> AnsweredFaces:
    """The sample, or some of its groups if it has very many.

    Raises:
        DataError: too few faces or groups.
    """
    if len(sample) < MIN_FACES:
        raise DataError(f"{sample.path}: holds {len(sample)} answered faces; at least {MIN_FACES} are needed")
    groups = _count(sample.groups)
    if groups < MIN_GROUPS:
        raise DataError(
            f"{sample.path}: its faces are of {groups} groups; at least {MIN_GROUPS} are needed to tell how groups "
            "differ, so log more, or group by something else"
        )
    if MAX_GROUPS < groups < len(sample):
        rows = np.isin(sample.groups, rng.choice(groups, MAX_GROUPS, replace=False))
        sample = replace(
            sample,
            emotions=sample.emotions[rows],
            measures={name: values[rows] for name, values in sample.measures.items()},
            groups=np.unique(sample.groups[rows], return_inverse=True)[1],
        )
    return sample


def _known(sample: AnsweredFaces, name: str) -> NDArray[np.bool_]:
    if name == ANSWERS:
        return np.array([emotion is not None for emotion in sample.emotions], bool)
    return np.isfinite(sample.measures[name])


def _values(sample: AnsweredFaces, name: str) -> NDArray[np.float64] | NDArray[np.object_]:
    values = sample.emotions if name == ANSWERS else sample.measures[name]
    return values[_known(sample, name)]


def _groups(sample: AnsweredFaces, name: str) -> NDArray[np.int64]:
    return np.unique(sample.groups[_known(sample, name)], return_inverse=True)[1]


def _difference(
    name: str, values: Sequence[NDArray[np.generic]], groups: Sequence[NDArray[np.int64]], rng: np.random.Generator
) -> Difference:
    """The difference of one measure, its p-value not yet corrected."""
    if name == ANSWERS:
        names = np.unique(np.concatenate(values).astype(str))
        binned = [np.searchsorted(names, found.astype(str)) for found in values]
    else:
        names = np.array([])
        edges = np.unique(np.quantile(np.concatenate(values), np.linspace(0, 1, _BINS + 1)))
        binned = [np.searchsorted(edges, found) for found in values]
    count = max(int(bins.max()) for bins in binned) + 1
    first, second = (np.bincount(bins, minlength=count) / len(bins) for bins in binned)
    value = float(_distance((second - first)[None], name)[0])
    chance = [_noise(bins, of, count, rng) for bins, of in zip(binned, groups, strict=True)]
    p = (1 + int((_distance(chance[1] - chance[0], name) >= value).sum())) / (1 + RESAMPLES)
    if name == ANSWERS:
        most = int(np.abs(second - first).argmax())
        return Difference(name, value, p, float(first[most]), float(second[most]), str(names[most]))
    first_median, second_median = (float(np.median(found.astype(float))) for found in values)
    return Difference(name, value, p, first_median, second_median, "median")


def _distance(changes: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """Distances (R,) of changes of the shares of bins (R, B)."""
    found: NDArray[np.float64] = np.abs(changes).sum(1) / 2 if name == ANSWERS else np.abs(changes.cumsum(1)).max(1)
    return found


def _noise(
    bins: NDArray[np.int64], groups: NDArray[np.int64], count: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """How the shares of the bins change, (R, B), when groups are drawn again with replacement."""
    shares = np.bincount(bins, minlength=count) / len(bins)
    number = _count(groups)
    if number == len(bins):  # each face alone
        drawn = rng.multinomial(len(bins), shares, RESAMPLES) / len(bins)
    else:
        table = np.zeros((number, count))
        np.add.at(table, (groups, bins), 1)
        first = number * np.arange(_CHUNK)[:, None]  # of each resample, in one long count
        chunks = []
        for _ in range(RESAMPLES // _CHUNK):
            chosen = rng.integers(0, number, (_CHUNK, number)) + first
            times = np.bincount(chosen.ravel(), minlength=_CHUNK * number).reshape(_CHUNK, number)
            chunks.append(times.astype(float) @ table)
        drawn = np.concatenate(chunks)
        drawn /= drawn.sum(1, keepdims=True)
    noise: NDArray[np.float64] = drawn - shares
    return noise


def _count(groups: NDArray[np.int64]) -> int:
    return int(groups.max()) + 1 if len(groups) else 0
