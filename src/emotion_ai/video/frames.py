"""What flows through a video: frames from a source, and the faces read in them."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from emotion_ai.inference.results import FaceReading


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a source.

    Attributes:
        number: from 0, counted as the source has them, frames that are skipped included.
        seconds: since the source's first frame.
        rgb: uint8 (H, W, 3), upright.
    """

    number: int
    seconds: float
    rgb: NDArray[np.uint8]


class FrameSource(Protocol):
    """A file, a camera, a stream or a folder of frames; its frames are iterated once, inside `with`.

    Attributes:
        name: for messages; never has a password.
        live: whether frames come in real time, and are dropped rather than read late.
        fps: frames per second that will be read, where the source says so.
        frames: how many frames will be read, where the source says so; an estimate, with those that a resumed
            run has read before.
        dropped: frames that a live source has dropped so far.
        broken: packets or pictures so far that could not be decoded.
    """

    name: str
    live: bool
    fps: float | None
    frames: int | None

    @property
    def dropped(self) -> int: ...

    @property
    def broken(self) -> int: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def __iter__(self) -> Iterator[Frame]: ...


@dataclass(frozen=True, eq=False)
class TrackedFace:
    """One face of a frame.

    Attributes:
        track: of the person, from 1 in the order of appearance.
        reading: smoothed over time.
        raw: as read from this frame alone.
    """

    track: int
    reading: FaceReading
    raw: FaceReading


@dataclass(frozen=True, eq=False)
class FrameReading:
    """The faces of one frame.

    Attributes:
        frame: its number in the source, from 0.
        seconds: since the source's first frame.
        faces: from left to right; empty where there is none.
        rgb: uint8 (H, W, 3), the frame itself.
        cut: whether the picture changed at once since the frame before, as at a cut.
    """

    frame: int
    seconds: float
    faces: tuple[TrackedFace, ...]
    rgb: NDArray[np.uint8]
    cut: bool = False
