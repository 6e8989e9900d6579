"""Reading a video: who is in each frame, and how they look."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emotion_ai.errors import ConfigError, ImageError, NoFaceError
from emotion_ai.extras import load
from emotion_ai.inference.results import CropReader, FaceReading
from emotion_ai.video.following import Follower
from emotion_ai.video.frames import Frame, FrameReading, FrameSource, TrackedFace
from emotion_ai.video.scenes import Scene
from emotion_ai.video.smoothing import Smoother
from emotion_ai.video.tracking import Tracker
from emotion_ai.vision.photo import MIN_SIDE, Photo, load_photo

_LARGEST = 4  # times the frame

RgbReader = Callable[[NDArray[np.uint8]], Sequence[FaceReading]]
"""Reads a frame, uint8 (H, W, 3): its faces, in pixels of the frame; none, or a NoFaceError, where there is none."""


class FaceTracker:
    """Numbers the faces of a video by person and smooths them, for readings that come from elsewhere.

    Args:
        tracker: pairs the faces of successive frames.
        smooth: whether readings are smoothed over time.
    """

    def __init__(self, tracker: Tracker | None = None, *, smooth: bool = True) -> None:
        self.tracker, self._smoother = tracker or Tracker(), Smoother() if smooth else None

    def __call__(
        self, faces: Sequence[FaceReading], seconds: float, rgb: NDArray[np.uint8] | None = None, cut: bool = False
    ) -> tuple[TrackedFace, ...]:
        """The faces of a frame with their tracks, from left to right.

        Args:
            faces: of one frame, in its pixels.
            seconds: the frame's time; the steps may differ.
            rgb: the frame, uint8 (H, W, 3); without it only places and motion count, not looks.
            cut: whether the frame shows another scene than the one before.

        Raises:
            ConfigError: the time does not increase.
        """
        raw = sorted(faces, key=lambda face: face.box.left + face.box.size / 2)
        tracks = self.tracker(raw, seconds, rgb, cut)
        if self._smoother is None:
            return tuple(map(TrackedFace, tracks, raw, raw))
        if cut:
            self._smoother.forget()
        return tuple(map(TrackedFace, tracks, self._smoother(raw, tracks, seconds), raw))

    def state(self) -> dict[str, Any]:
        """What it remembers, for JSON; `restore` takes it."""
        return {"tracker": self.tracker.state(), "smoother": self._smoother and self._smoother.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from what `state` returned, with the same settings."""
        self.tracker.restore(state["tracker"])
        if self._smoother:
            self._smoother.restore(state["smoother"])


class VideoReader:
    """Reads the frames of a video one by one, in order.

    A face is detected once and then followed: its crop moves with its points and takes one pass of the network. In
    between, one pass of the detector looks for new faces and checks that the others are still there. The whole search
    of `detect_faces` runs every `detect_every` seconds, after a cut, and when a face gets lost.

    A function as reader has every frame, and detects by itself.

    Args:
        reader: a `FaceReader`, a `FaceClient` or another `CropReader`; or a function of a frame, uint8 (H, W, 3), that
            returns its faces, or raises NoFaceError.
        detect_every: seconds between two whole searches; 0 searches every frame.
        check_every: seconds between two short ones.
        smooth: whether readings are smoothed over time.
        occlusion: seconds for which the place of a face that is out of sight is trusted.
        memory: seconds for which its look is remembered, to recognise it.

    Raises:
        ConfigError: the reader is neither, or a time is negative.
    """

    def __init__(
        self,
        reader: CropReader | RgbReader,
        *,
        detect_every: float = 1.0,
        check_every: float = 0.2,
        smooth: bool = True,
        occlusion: float = 2.0,
        memory: float = 60.0,
    ) -> None:
        if not (detect_every >= 0 and check_every >= 0):
            raise ConfigError(f"`detect_every` and `check_every` must be >= 0, got {detect_every} and {check_every}")
        self._follower: Follower | None = None
        self._reader: RgbReader | None = None
        if hasattr(reader, "read_crops"):
            self._follower = Follower(reader, detect_every, check_every)
        elif callable(reader):
            self._reader = reader
        else:
            raise ConfigError(f"`reader` must have `read_crops` or be a function of a frame, got {reader!r:.80}")
        self._faces = FaceTracker(Tracker(occlusion, memory), smooth=smooth)
        self._scene = Scene()

    def __call__(self, frame: Frame) -> FrameReading:
        """The faces of the next frame. After an error of the reader the same frame can be given again.

        Raises:
            ConfigError: the time does not increase.
            ImageError: the frame is no picture, or smaller than 16 pixels; or a function as reader has found a face
                without a size.
            ClientError: a request of a `FaceClient` fails.
        """
        tracker = self._faces.tracker
        if not tracker.seconds < frame.seconds < np.inf:
            raise ConfigError(
                f"frame {frame.number}: times must increase, got {frame.seconds} s after {tracker.seconds} s"
            )
        photo = _photo(frame)
        scene = self._scene.then(photo.gray)
        if self._follower:
            found = self._follower.find(photo, frame.seconds, tracker, scene.cut)
            tracked = self._faces(found.faces, frame.seconds, photo.rgb, scene.cut)
            self._follower.confirm(found, tracked)
        else:
            tracked = self._faces(self._read(photo.rgb, frame.number), frame.seconds, photo.rgb, scene.cut)
        self._scene = scene
        return FrameReading(frame.number, frame.seconds, tracked, photo.rgb, scene.cut)

    def _read(self, rgb: NDArray[np.uint8], number: int) -> Sequence[FaceReading]:
        assert self._reader is not None
        try:
            found = self._reader(rgb)
        except NoFaceError:
            return []
        faces = list(found) if isinstance(found, Iterable) else [found]
        for face in faces:
            if not isinstance(face, FaceReading):
                raise ConfigError(f"the reader must return a list of `FaceReading`, got {type(face).__name__}")
            box = face.box
            if not (np.isfinite([box.left, box.top, box.roll]).all() and 1 <= box.size <= _LARGEST * max(rgb.shape)):
                raise ImageError(
                    f"frame {number}: the reader found a face of {box.size:g} pixels at {box.left:g}, {box.top:g}; it "
                    f"must have 1 pixel at least, and {_LARGEST} times the frame at most"
                )
        return faces

    def state(self) -> dict[str, Any]:
        """All that the next readings depend on, for JSON; `restore` takes it."""
        return {
            "faces": self._faces.state(),
            "scene": self._scene.state(),
            "follower": self._follower and self._follower.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from what `state` returned, with the same settings: the same frames give the same readings."""
        self._faces.restore(state["faces"])
        self._scene = Scene.of(state["scene"])
        if self._follower:
            self._follower.restore(state["follower"])


def read(
    source: str | Path | int | FrameSource | Iterable[Frame],
    reader: CropReader | RgbReader,
    *,
    every: str | None = None,
    start: float = 0.0,
    end: float | None = None,
    limit: int | None = None,
    **options: Any,
) -> Iterator[FrameReading]:
    """Reads a video: its frames with their faces, numbered by person, one after the other.

    Args:
        source: a file, a folder of frames, a URL or the number of a camera, which need the extra [video]; or frames.
        reader: a `FaceReader`, a `FaceClient`, or a function of a frame, uint8 (H, W, 3), that returns its faces.
        every: of a file, folder, URL or camera, read a frame every so many seconds, "0.5s", or every so many frames,
            "10".
        start: second at which to start.
        end: second before which to end.
        limit: most frames to read.
        options: of `VideoReader`.

    Raises:
        ConfigError: an option is invalid.
        ImageError: the source cannot be opened or decoded.
        ClientError: a request of a `FaceClient` fails.
        MissingExtraError: the source needs the extra [video].
    """
    video = VideoReader(reader, **options)
    if isinstance(source, str | Path | int):
        spec = str(source) if isinstance(source, int) else source
        opened: AbstractContextManager[Iterable[Frame]] = load("emotion_ai.video.sources").open_source(
            spec, every=every, start=start, end=end, limit=limit
        )
    elif (every, start, end, limit) != (None, 0.0, None, None):
        raise ConfigError("`every`, `start`, `end` and `limit` are for a file, folder, URL or camera, not for frames")
    else:
        opened = source if isinstance(source, AbstractContextManager) else nullcontext(source)
    with opened as frames:
        for frame in frames:
            yield video(frame)


def _photo(frame: Frame) -> Photo:
    rgb, name = frame.rgb, f"frame {frame.number}"
    plain = isinstance(rgb, np.ndarray) and rgb.dtype == np.uint8 and rgb.shape[2:] == (3,)
    if not plain or min(rgb.shape[:2]) < MIN_SIDE:
        return load_photo(rgb)
    return Photo(rgb, np.asarray(Image.fromarray(rgb).convert("L")), name)
