"""A canary is refused if it is worse beyond a margin: by its answers, its steadiness, its latency or its errors."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from emotion_ai import FaceReader
from emotion_ai.cli import app, canary_command
from emotion_ai.cli.canary_command import CanaryOptions
from emotion_ai.contract import EMOTIONS, FLIP, Task
from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.errors import (
    AccessDeniedError,
    ConfigError,
    DataError,
    EmotionAIError,
    RequestRejectedError,
    ServerFailureError,
    ServerUnavailableError,
    ServerUnreachableError,
)
from emotion_ai.evaluation.canary import answers
from emotion_ai.evaluation.canary import faces as faces_module
from emotion_ai.evaluation.canary.answers import MAX_FAILURES, ask_both, shift
from emotion_ai.evaluation.canary.compare import Margins, Verdict, exact_mcnemar, judge
from emotion_ai.evaluation.canary.faces import CanaryFaces, load_faces
from emotion_ai.inference.results import CropReadings, Crops
from emotion_ai.models import FaceNetwork, load_network
from emotion_ai.vision.photo import PORTRAITS
from emotion_ai_export.registry.model_config import read_config

FACES = synthetic_faces(80, 5)
KNOWN = CanaryFaces("synthetic faces", list(FACES.images), FACES.points, FACES.labels)
UNKNOWN = CanaryFaces("photos", list(FACES.images))
WHERE = {image.tobytes(): i for i, image in enumerate(FACES.images)}
MIRRORED = {np.ascontiguousarray(image[:, ::-1]).tobytes(): i for i, image in enumerate(FACES.images)}
SHIFTED = {shift(image).tobytes(): i for i, image in enumerate(FACES.images)}


CLOCK = [0.0]
"""Seconds, which pass only while a reader answers."""


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "time", SimpleNamespace(perf_counter=lambda: CLOCK[0]))


class Reader:
    """Knows the faces: their points and classes, with errors of its own.

    Args:
        noise: standard deviation of a point's error, in pixels, the same for a face whenever it is sent.
        unsteady: of an error that is drawn anew for each picture.
        wrong: share of faces to which it gives another class.
        seed: of all errors.
        seconds: of a call.
        error: raised by a call, given its number.
        sharpness: the probability of its class.
    """

    def __init__(
        self,
        noise: float = 1.0,
        unsteady: float = 0.3,
        wrong: float = 0.1,
        seed: int = 1,
        seconds: float = 0.01,
        error: Callable[[int], Exception | None] = lambda call: None,
        sharpness: float = 0.75,
    ) -> None:
        self.noise, self.unsteady, self.wrong, self.seed = noise, unsteady, wrong, seed
        self.seconds, self.error, self.sharpness, self.calls = seconds, error, sharpness, 0
        self.sizes: list[int] = []

    def read_crops(self, images: Crops) -> CropReadings:
        self.calls += 1
        self.sizes.append(len(images))
        if (error := self.error(self.calls)) is not None:
            raise error
        CLOCK[0] += self.seconds
        found = [self._read(np.asarray(image)) for image in images]
        points, scores = (np.stack(part).astype(np.float32) for part in zip(*found, strict=True))
        return CropReadings(points, scores, np.full_like(points, 1.5))

    def _read(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        known = image.tobytes()
        for kind, table in enumerate((WHERE, MIRRORED, SHIFTED)):
            if known in table:
                i = table[known]
                rng, own = np.random.default_rng([self.seed, i]), np.random.default_rng([self.seed, i, kind])
                points = FACES.points[i] + rng.normal(0, self.noise, (15, 2)) + own.normal(0, self.unsteady, (15, 2))
                label = (FACES.labels[i] + (rng.random() < self.wrong)) % 5
                if kind == 1:
                    points = points[list(FLIP)]
                    points[:, 0] = 95 - points[:, 0]
                points[:, 0] += 2 * (kind == 2)
                scores = np.full(5, (1 - self.sharpness) / 4)
                scores[label] = self.sharpness
                wobble = np.abs(own.normal(0, self.unsteady / 20, 5))
                return points, (scores + wobble) / (scores + wobble).sum()
        assert not image.any(), "an unknown picture"
        return np.zeros((15, 2)), np.full(5, 0.2)


def verdict(canary: Reader, faces: CanaryFaces = KNOWN, stable: Reader | None = None, **margins: float) -> Verdict:
    changes = [f"{name}={value}" for name, value in margins.items()]
    return judge(faces, ask_both(stable or Reader(), canary, faces), Margins.parse(changes))


def refusals(found: Verdict) -> set[str]:
    return {check.margin_name for check in found.checks if check.worse}


@pytest.mark.parametrize("faces", [KNOWN, UNKNOWN], ids=["labelled", "not labelled"])
def test_the_same_version_is_not_refused(faces: CanaryFaces) -> None:
    found = verdict(Reader(), faces)
    assert not found.worse, refusals(found)
    assert found.identical
    assert ("accuracy" in {check.margin_name for check in found.checks}) == (faces is KNOWN)


@pytest.mark.parametrize("seed", range(2, 8))
def test_another_version_that_is_as_good_is_not_refused(seed: int) -> None:
    found = verdict(Reader(0.5, wrong=0.08, seed=seed), stable=Reader(0.5, wrong=0.08))
    assert not found.identical
    assert not refusals(found)


@pytest.mark.parametrize(
    ("worse", "margin"),
    [
        (Reader(noise=1.6), "rmse"),
        (Reader(wrong=0.4), "accuracy"),
        (Reader(wrong=0.4), "brier"),
        (Reader(wrong=0.4), "classes"),
        (Reader(unsteady=0.9), "mirror"),
        (Reader(unsteady=0.9), "shift"),
        (Reader(noise=3.0), "points"),
        (Reader(sharpness=0.5), "confidence"),
        (Reader(sharpness=0.97), "confidence"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_way_to_be_worse_is_found(worse: Reader, margin: str) -> None:
    found = verdict(worse)
    assert margin in refusals(found)
    assert found.worse
    (check, *_) = (check for check in found.checks if check.margin_name == margin and check.worse)
    assert check.low <= check.effect <= check.high


def test_other_classes_where_stable_is_sure_weigh_more() -> None:
    sure, unsure = Reader(sharpness=0.85), Reader(sharpness=0.75)
    assert "confident" in refusals(verdict(Reader(sharpness=0.85, wrong=0.3), UNKNOWN, sure))
    assert not refusals(verdict(Reader(sharpness=0.75, wrong=0.3), UNKNOWN, unsure))


def test_a_version_made_worse_is_found_without_labels() -> None:
    assert {"mirror", "shift"} <= refusals(verdict(Reader(unsteady=0.9), UNKNOWN))


def test_noise_in_the_bundled_weights_is_found_with_and_without_labels(networks: dict[Task, FaceNetwork]) -> None:
    keypoints, _ = load_network("bundled", "keypoints")
    noisy = copy.deepcopy(keypoints)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in noisy.parameters():
            if parameter.ndim >= 2:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2 * float(parameter.std()))
    few = CanaryFaces("few", KNOWN.crops[:32], FACES.points[:32])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        stable, canary = (FaceReader(network, networks["emotion"]) for network in (keypoints, noisy))
        both = ask_both(stable, canary, few)
    finally:
        torch.set_num_threads(threads)
    for faces in (few, replace(few, points=None)):
        assert "mirror" in refusals(judge(faces, both))


def test_a_better_version_is_not_refused() -> None:
    found = verdict(Reader(noise=0.5, unsteady=0.1, wrong=0.0))
    assert not refusals(found)


def test_a_difference_beyond_the_margin_needs_evidence() -> None:
    both = ask_both(Reader(), Reader(wrong=0.25), KNOWN)
    rows = slice(0, 12)
    assert both.versions is not None
    (many,) = (check for check in judge(KNOWN, both).checks if check.name == "accuracy")
    few_faces = CanaryFaces("few", KNOWN.crops[rows], None, FACES.labels[rows])
    (few,) = (
        check
        for check in judge(few_faces, ask_both(Reader(), Reader(wrong=0.25), few_faces)).checks
        if check.name == "accuracy"
    )
    assert many.worse
    assert few.effect > few.margin
    assert few.low <= 0
    assert not few.worse


def test_a_slower_version_is_refused_and_a_margin_can_be_given() -> None:
    faces = CanaryFaces("few", KNOWN.crops[:40])
    both = ask_both(Reader(), Reader(seconds=0.018), faces)
    assert refusals(judge(faces, both)) == {"latency"}
    assert not judge(faces, both, Margins.parse(["latency=2"])).worse
    (latency,) = (check for check in judge(faces, both).checks if check.margin_name == "latency")
    assert (latency.stable, latency.canary, latency.effect) == pytest.approx((10, 18, 1.8))
    assert not judge(faces, ask_both(Reader(), Reader(seconds=0.012), faces)).worse


def test_a_few_slow_requests_do_not_refuse_a_version() -> None:
    def stall(call: int) -> None:
        CLOCK[0] += 5.0 * (call % 9 == 0)

    assert not verdict(Reader(error=stall), UNKNOWN).worse


def test_requests_alternate_so_that_noise_is_shared() -> None:
    order: list[str] = []

    def note(name: str) -> Callable[[int], None]:
        return lambda call: order.append(name)

    stable, canary = Reader(error=note("stable")), Reader(error=note("canary"))
    ask_both(stable, canary, CanaryFaces("few", KNOWN.crops[:4]))
    assert order[2:10] == ["stable", "canary", "canary", "stable", "stable", "canary", "canary", "stable"]
    assert stable.sizes == canary.sizes == [1, *[1] * 60, 4, 4]


@pytest.mark.parametrize("error", [ServerFailureError("NaN"), RequestRejectedError("400")])
def test_a_canary_that_fails_is_refused(error: Exception) -> None:
    once = verdict(Reader(error=lambda call: error if call == 7 else None))
    assert once.worse
    assert once.failures == [str(error)]
    assert once.checks
    broken = Reader(error=lambda call: error)
    always = verdict(broken)
    assert always.worse
    assert not always.checks
    assert broken.calls == MAX_FAILURES


@pytest.mark.parametrize("error", [ServerUnreachableError, ServerUnavailableError, AccessDeniedError])
def test_errors_that_are_not_the_canarys_end_the_comparison(error: type[EmotionAIError]) -> None:
    with pytest.raises(error):
        verdict(Reader(error=lambda call: error("no server") if call == 9 else None))
    with pytest.raises(ServerFailureError, match="stable"):
        verdict(Reader(), stable=Reader(error=lambda call: ServerFailureError("stable") if call == 9 else None))


def test_intervals_resample_people_where_they_are_known() -> None:
    people = np.arange(80) // 20
    grouped = replace(KNOWN, groups=people, resampled="people")
    both = ask_both(Reader(), Reader(noise=1.6), KNOWN)
    wide, narrow = (
        next(check for check in judge(faces, both).checks if check.margin_name == "rmse") for faces in (grouped, KNOWN)
    )
    assert judge(grouped, both).resampled == "people"
    assert wide.effect == narrow.effect
    assert (wide.low, wide.high) != (narrow.low, narrow.high)
    some = ask_both(
        Reader(), Reader(noise=1.6, error=lambda call: ServerFailureError("x") if call == 5 else None), KNOWN
    )
    assert all(np.isfinite([check.low, check.high]).all() for check in judge(grouped, some).checks)


def test_a_model_with_one_task_is_compared_in_what_it_answers() -> None:
    class Keypoints(Reader):
        def read_crops(self, images: Crops) -> CropReadings:
            found = super().read_crops(images)
            return CropReadings(found.keypoints, np.full_like(found.probabilities, np.nan))

    class Emotion(Reader):
        def read_crops(self, images: Crops) -> CropReadings:
            found = super().read_crops(images)
            return CropReadings(np.full_like(found.keypoints, np.nan), found.probabilities)

    keypoints = verdict(Keypoints(noise=3.0), stable=Keypoints())
    assert {"rmse", "points"} <= refusals(keypoints)
    assert not {"accuracy", "classes", "confidence"} & {check.margin_name for check in keypoints.checks}
    emotion = verdict(Emotion(wrong=0.4), stable=Emotion())
    assert {"accuracy", "classes"} <= refusals(emotion)
    assert not {"rmse", "points"} & {check.margin_name for check in emotion.checks}


def with_classes(names: tuple[str, ...], order: list[int]) -> type[Reader]:
    """A reader that knows the five in another order, or more classes."""

    class Other(Reader):
        def read_crops(self, images: Crops) -> CropReadings:
            found = super().read_crops(images)
            more = np.zeros((len(images), len(names)), np.float32)
            more[:, order] = found.probabilities
            five = found.probabilities if names[:5] == EMOTIONS else more
            return replace(found, probabilities=five, expressions=more, classes=names)

    return Other


def test_labels_are_compared_by_the_names_of_the_classes() -> None:
    names = tuple(sorted(EMOTIONS))
    backwards = with_classes(names, [names.index(name) for name in EMOTIONS])
    found = verdict(backwards(wrong=0.4), stable=backwards(wrong=0.1))
    assert {"accuracy", "classes"} <= refusals(found)
    accuracy = next(check for check in found.checks if check.name == "accuracy")
    assert accuracy.stable == pytest.approx(0.9, abs=0.07)


def test_versions_with_more_classes_are_compared_in_the_five_emotions() -> None:
    seven = with_classes((*EMOTIONS, "Fear", "Neutral"), list(range(5)))
    assert not verdict(seven()).worse
    assert {"accuracy", "classes"} <= refusals(verdict(seven(wrong=0.4)))
    with pytest.raises(ConfigError, match="the versions know different classes"):
        verdict(with_classes(("a", "b", "c", "d", "e"), list(range(5)))())


@pytest.mark.parametrize("first", range(6))
def test_mcnemar_agrees_with_scipy(first: int) -> None:
    from scipy.stats import binomtest

    a = np.array([True] * first + [False] * 7 + [True] * 30)
    b = np.array([False] * first + [True] * 7 + [True] * 30)
    assert exact_mcnemar(a, b) == pytest.approx(float(binomtest(first, first + 7).pvalue))
    assert exact_mcnemar(a, a) == 1.0


@pytest.mark.parametrize(
    "text", ["speed=2", "latency", "latency=", "latency=fast", "latency=0.5", "rmse=nan", "rmse=inf"]
)
def test_margins_must_be_known_and_sensible(text: str) -> None:
    with pytest.raises(ConfigError, match="--margin"):
        Margins.parse([text])


def test_faces_come_from_photos_crops_and_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(FACES.images[0]).save(tmp_path / "crop.png")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    folder = tmp_path / "classes"
    for name, i in (("angry", 0), ("happy", 1)):
        (folder / name).mkdir(parents=True)
        Image.fromarray(FACES.images[i]).save(folder / name / "face.png")
    with pytest.raises(DataError, match="2 photos: a comparison needs 20 faces, found 2"):
        load_faces([], PORTRAITS, 300, 0)
    with pytest.raises(ConfigError, match="--count must be >= 20, got 19"):
        load_faces([], [], 19, 0)
    assert len(load_faces([], [], 30, 2)) == 30
    monkeypatch.setattr(faces_module, "MIN_FACES", 1)
    photos = load_faces([], [*PORTRAITS, tmp_path / "crop.png", tmp_path / "broken.jpg"], 300, 0)
    assert len(photos) == 3
    assert photos.points is None
    assert photos.labels is None
    assert len(load_faces([], PORTRAITS, 1, 0)) == 1
    labelled = load_faces([folder], [], 300, 0)
    assert labelled.labels is not None
    assert labelled.labels.tolist() == [0, 3]
    assert labelled.groups is None
    Image.fromarray(FACES.images[0] // 2).save(folder / "angry" / "darker.png")
    assert len(load_faces([folder], [], 2, 0)) == 2
    assert load_faces([folder], [], 300, 0).resampled == "groups of near-identical faces"
    with pytest.raises(DataError, match="no face in the 1 photos"):
        load_faces([], [tmp_path / "broken.jpg"], 300, 0)


CONFIG = """
model_config_list {{ config {{ name: "face" base_path: "{base}/face" model_platform: "tensorflow"
  model_version_policy {{ specific {{ versions: 1 versions: 2 }} }}
  version_labels {{ key: "stable" value: 1 }} version_labels {{ key: "canary" value: {canary} }} }} }}
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "models.config").write_text(CONFIG.format(base=tmp_path, canary=2))
    return tmp_path


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, base: Path) -> dict[str | None, Reader]:
    """Readers in the place of the server's versions, by label."""
    readers: dict[str | None, Reader] = {"stable": Reader(), "canary": Reader()}

    class Client:
        def __init__(self, url: str, *, model: str, label: str) -> None:
            self.read_crops, self.label = readers[label].read_crops, label

        def metadata(self) -> dict[str, Any]:
            (config,) = read_config(base)
            return {"model_spec": {"version": str(config.labels[self.label])}}

        def __enter__(self) -> "Client":
            return self

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(canary_command, "FaceClient", Client)
    monkeypatch.setattr(canary_command, "load_faces", lambda *_: KNOWN)
    return readers


def run(base: Path, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["canary", str(base), *options], env={"COLUMNS": "200"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_the_command_exits_with_0_for_an_equal_version_and_1_for_a_worse_one(
    base: Path, served: dict[str | None, Reader], tmp_path: Path
) -> None:
    code, text = run(base)
    assert code == 0
    assert "version 2 is not worse than version 1 on 80 faces" in text
    assert "All answers are the same." in text
    served["canary"] = Reader(noise=2.5, wrong=0.4)
    code, text = run(base, "--json", "--out", str(tmp_path / "result.json"), "--picture", str(tmp_path / "picture.png"))
    assert code == 1
    record = json.loads(text)
    assert record == json.loads((tmp_path / "result.json").read_text())
    assert record["worse"]
    assert record["versions"] == {"stable": 1, "canary": 2}
    assert {check["margin_name"] for check in record["checks"] if check["worse"]} >= {"rmse", "accuracy", "classes"}
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.width > 800
    code, text = run(base)
    assert code == 1
    assert "worse than version 1" in text
    assert "keypoint RMSE, px" in text


def test_a_failing_canary_is_named(base: Path, served: dict[str | None, Reader], tmp_path: Path) -> None:
    served["canary"] = Reader(error=lambda call: ServerFailureError("keypoints contains NaN"))
    code, text = run(base, "--picture", str(tmp_path / "picture.png"))
    assert code == 1
    assert "keypoints contains NaN" in text
    assert "5 failed requests" in text


def test_both_labels_on_one_version_are_noticed(base: Path, served: dict[str | None, Reader]) -> None:
    (base / "models.config").write_text(CONFIG.format(base=base, canary=1))
    result = CliRunner().invoke(app, ["canary", str(base)])
    assert result.exit_code == 0
    assert "are both version 1" in " ".join(result.stderr.split())


def test_a_label_that_is_another_version_on_the_server_is_an_error(
    base: Path, served: dict[str | None, Reader], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a server that rejects models.config, or reads another one."""
    monkeypatch.setattr(
        "emotion_ai.cli.canary_command.FaceClient.metadata", lambda self: {"model_spec": {"version": "1"}}
    )
    with pytest.raises(ConfigError, match=r"canary is version 1 there, but 2 in .*models\.config; give the folder"):
        run(base)


def test_a_label_that_moves_meanwhile_is_an_error(base: Path, served: dict[str | None, Reader]) -> None:
    def move(call: int) -> None:
        (base / "models.config").write_text(CONFIG.format(base=base, canary=1))

    served["canary"] = Reader(error=move)
    with pytest.raises(ConfigError, match="a label was moved during the comparison"):
        run(base)


def test_bad_input_is_a_clear_error(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no version labelled beta"):
        run(base, "--canary", "beta")
    with pytest.raises(ConfigError, match="does not list emotion"):
        run(base, "--model", "emotion")
    with pytest.raises(ConfigError, match="does not list face"):
        run(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="--margin speed=3: the margins are"):
        run(base, "--margin", "speed=3")
    with pytest.raises(ConfigError, match="no such file or folder"):
        run(base, "--faces", str(tmp_path / "missing"))
    with pytest.raises(ServerUnreachableError):
        run(base, "--server", "http://127.0.0.1:9")


def test_faces_that_cannot_be_used_are_a_clear_error(
    base: Path, served: dict[str | None, Reader], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no photos there"):
        run(base, "--faces", str(tmp_path / "empty"))
    (tmp_path / "faces.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="a dataset is compared alone"):
        run(base, "--faces", str(tmp_path / "faces.csv"), "--faces", str(tmp_path / "empty"))


def test_the_options_are_those_of_the_command() -> None:
    assert CanaryOptions(Path(), "").count == 300
