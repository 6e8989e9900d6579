"""Videos are read with few searches, the same people keep their numbers, and a restored reader continues exactly."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import emotion_ai
from emotion_ai.benchmarks.video import identities
from emotion_ai.errors import ConfigError, ImageError, NoFaceError, ServerUnavailableError
from emotion_ai.inference.reader import FaceReader
from emotion_ai.inference.results import CropReadings, Crops
from emotion_ai.video import VideoReader, following, read
from emotion_ai.video.events import Event, EventFinder
from emotion_ai.video.frames import Frame, FrameReading
from emotion_ai.video.script import CROSSING, CUT, EMPTY, EVENTS, ScriptedClip, ScriptedEvent, frame_number

FPS = 10


BUNDLED = FaceReader.bundled(device="cpu")


class Counted:
    """The bundled reader; it counts the crops, may fail, and may be a model without points."""

    def __init__(self, points: bool = True) -> None:
        self.points, self.crops = points, 0
        self.fail: Callable[[], None] = lambda: None

    def read_crops(self, images: Crops) -> CropReadings:
        self.fail()
        self.crops += len(images)
        found = BUNDLED.read_crops(images)
        return found if self.points else replace(found, keypoints=found.keypoints * np.nan, deviations=None)


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the detector's functions, as they are called."""
    calls = []

    def counted(name: str) -> Any:
        plain = getattr(following, name)

        def call(*arguments: Any) -> Any:
            calls.append(name)
            return plain(*arguments)

        return call

    for name in ("detect_faces", "find_faces_quickly"):
        monkeypatch.setattr(following, name, counted(name))
    return calls


def test_two_who_cross_keep_their_numbers() -> None:
    clip = ScriptedClip(FPS, start=CROSSING[0] + 1, end=CROSSING[1] - 0.6)
    readings = list(read(clip, Counted()))
    idf1, switches = identities(clip, readings)
    assert switches == 0
    assert idf1 >= 0.9
    assert {face.track for reading in readings for face in reading.faces} == {1, 2}


@pytest.fixture(scope="module")
def whole_clip() -> tuple[ScriptedClip, list[FrameReading]]:
    clip = ScriptedClip(8)
    return clip, list(read(clip, clip.reader()))


def test_each_expression_is_one_event_of_the_right_person(whole_clip: tuple[ScriptedClip, list[FrameReading]]) -> None:
    """Precision and recall are at least 0.9 at 0.5 s, although every tenth reading names a random class."""
    finder = EventFinder()
    ended = [event for reading in whole_clip[1] for event in finder(reading).ended] + list(finder.finish().ended)
    matched = [
        [e for e in ended if (e.track, e.expression) == (s.person, s.expression) and _near(e, s)] for s in EVENTS
    ]
    right = sum(len(found) for found in matched)
    assert max(len(found) for found in matched) == 1
    assert right / len(EVENTS) >= 0.9
    assert right / len(ended) >= 0.9
    assert len(ended) == len(EVENTS), "one event for each occurrence"


def _near(event: Event, scripted: ScriptedEvent) -> bool:
    return abs(event.start - scripted.start) <= 0.5 and abs(event.end - scripted.end) <= 0.5


def test_people_are_recognised_after_a_cut_and_ten_seconds_without_anybody(
    whole_clip: tuple[ScriptedClip, list[FrameReading]],
) -> None:
    clip, readings = whole_clip
    assert [reading.seconds for reading in readings if reading.cut] == [CUT]
    assert identities(clip, readings) == (1.0, 0)
    assert {face.track for reading in readings for face in reading.faces} == {1, 2}
    assert not any(reading.faces for reading in readings if EMPTY[0] <= reading.seconds < EMPTY[1])


def test_between_detections_a_face_takes_one_pass(searches: list[str]) -> None:
    clip, reader = ScriptedClip(25, end=0.6), Counted()
    readings = list(read(clip, reader))
    assert [len(reading.faces) for reading in readings] == [2] * 15
    assert searches.count("detect_faces") == 1
    assert searches.count("find_faces_quickly") == 2, "every 0.2 seconds"
    assert reader.crops <= 2 * 15 + 2 * 2 + 4, "one pass for each face and frame, two more at first, few repeated"


def test_a_face_that_leaves_is_not_read_on(searches: list[str]) -> None:
    clip = ScriptedClip(FPS, start=EMPTY[0] - 0.5, end=EMPTY[0] + 1)
    readings = list(read(clip, Counted()))
    assert [len(reading.faces) for reading in readings] == [2] * 5 + [0] * 10
    assert searches.count("detect_faces") <= 5


def test_new_faces_are_found_within_the_time_between_checks() -> None:
    clip = ScriptedClip(FPS, start=EMPTY[1] - 0.5, end=EMPTY[1] + 0.5)
    seen = [reading.seconds for reading in read(clip, Counted()) if len(reading.faces) == 2]
    assert seen[0] <= EMPTY[1] + 0.2


def test_every_frame_is_searched_if_asked(searches: list[str]) -> None:
    list(read(ScriptedClip(FPS, end=0.5), Counted(), detect_every=0))
    assert searches.count("detect_faces") == 5


def test_a_model_without_points_is_detected_in_each_frame() -> None:
    readings = list(read(ScriptedClip(FPS, end=0.6), Counted(points=False)))
    assert [[face.track for face in reading.faces] for reading in readings] == [[1, 2]] * 6


def numbers_of(reading: FrameReading) -> list[Any]:
    """All numbers of a reading, exactly."""
    return [
        [face.track, reading.seconds, one.box, one.points.tolist(), one.over_classes.tolist(), one.score]
        for face in reading.faces
        for one in (face.raw, face.reading)
    ]


def test_a_restored_reader_continues_exactly() -> None:
    """Restored between any two frames, through JSON, over the crossing and the cut."""
    for start, end, fake in ((15.3, 16.0, Counted()), (CUT - 0.2, CUT + 0.3, Counted())):
        frames = list(ScriptedClip(FPS, start=start, end=end))
        plain, restored = VideoReader(fake), VideoReader(fake)
        for frame in frames:
            state = json.loads(json.dumps(restored.state(), allow_nan=False))
            restored = VideoReader(fake)
            restored.restore(state)
            one, other = plain(frame), restored(frame)
            assert numbers_of(one) == numbers_of(other)
            assert one.cut == other.cut
        assert plain.state() == restored.state()


def test_after_an_error_the_frame_can_be_given_again() -> None:
    fake = Counted()
    plain, disturbed = VideoReader(fake), VideoReader(fake)

    def fail() -> None:
        raise ServerUnavailableError("http://127.0.0.1:1: away")

    for frame in ScriptedClip(FPS, start=CUT - 0.2, end=CUT + 0.2):
        fake.fail = fail
        with pytest.raises(ServerUnavailableError):
            disturbed(frame)
        fake.fail = lambda: None
        assert numbers_of(plain(frame)) == numbers_of(disturbed(frame))


def test_any_function_of_a_frame_reads() -> None:
    clip = ScriptedClip(FPS, end=0.3)
    faces = clip.reader()

    def only_even(rgb: NDArray[np.uint8]) -> Any:
        if frame_number(rgb) % 2:
            raise NoFaceError("no face found")
        return faces(rgb)

    found = [
        (reading.frame, [face.track for face in reading.faces]) for reading in emotion_ai.video.read(clip, only_even)
    ]
    assert found == [(0, [1, 2]), (1, []), (2, [1, 2])]


def test_without_smoothing_readings_are_as_read() -> None:
    clip = ScriptedClip(FPS, end=0.5)
    for smooth in (True, False):
        last = list(read(clip, clip.reader(), smooth=smooth))[-1].faces[0]
        assert (last.reading.points.tolist() == last.raw.points.tolist()) != smooth


def test_bad_readers_times_and_frames_are_one_line() -> None:
    with pytest.raises(ConfigError, match="`reader` must have `read_crops` or be a function of a frame, got 5"):
        VideoReader(5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="must be >= 0, got -1 and 0.2"):
        VideoReader(Counted(), detect_every=-1)
    with pytest.raises(ConfigError, match="are for a file, folder, URL or camera, not for frames"):
        next(read(ScriptedClip(), Counted(), every="2"))
    clip = ScriptedClip(FPS)
    video = VideoReader(clip.reader())
    video(clip.frame(5))
    with pytest.raises(ConfigError, match=r"frame 4: times must increase, got 0\.4 s after 0\.5 s"):
        video(clip.frame(4))
    for rgb in (np.zeros((8, 8, 3), np.uint8), np.zeros((0, 9, 3), np.uint8), np.zeros((40, 40, 3), np.float64) + 0.5):
        with pytest.raises(ImageError):
            video(Frame(6, 0.6, rgb))  # type: ignore[arg-type]
    assert video(clip.frame(7)).frame == 7


def test_a_source_is_closed_at_the_end_and_when_the_loop_is_left() -> None:
    class Source:
        closed = 0

        def __enter__(self) -> "Source":
            return self

        def __exit__(self, *error: object) -> None:
            self.closed += 1

        def __iter__(self) -> Iterator[Frame]:
            return iter(ScriptedClip(FPS, end=0.3))

    source, faces = Source(), ScriptedClip(FPS).reader()
    assert len(list(read(source, faces))) == 3
    frames = read(source, faces)
    next(frames)
    frames.close()  # type: ignore[attr-defined]
    assert source.closed == 2
