"""A scripted clip: synthetic faces whose places, people and expressions are known, to measure what videos give."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from emotion_ai.class_set import SEVEN
from emotion_ai.contract import CROP_SIZE
from emotion_ai.data.face_drawing import FaceDrawing
from emotion_ai.errors import ConfigError
from emotion_ai.inference.results import FaceReading
from emotion_ai.video.frames import Frame
from emotion_ai.vision.crops import Box, box_from_points, crop
from emotion_ai.vision.overlap import overlaps
from emotion_ai.vision.pose import fit_pose
from emotion_ai.vision.quality import measure_quality

WIDTH, HEIGHT = 640, 480
SECONDS = 60.0
"""Length of the clip."""

CROSSING = (13.0, 17.0)
"""Seconds in which the two people walk past each other, the first in front."""

CUT = 24.0
"""Second at which another scene begins, in which both sit elsewhere."""

EMPTY = (34.0, 44.0)
"""Seconds in which nobody is seen."""

_HIDDEN = 0.5  # share of a face behind another from which it is not seen
_BITS, _BIT = 16, 10  # of the frame's number, drawn in squares of so many pixels
_DRAWINGS = (11, 5)  # seeds of the two faces
_TINTS = ((1.0, 0.80, 0.66), (1.0, 0.90, 0.82))


@dataclass(frozen=True)
class ScriptedEvent:
    """A person shows an expression from `start` to `end`, in seconds; in between they are neutral."""

    person: int
    start: float
    end: float
    expression: str


EVENTS = (
    ScriptedEvent(1, 2.0, 5.0, "Happy"),
    ScriptedEvent(2, 3.5, 6.5, "Sad"),
    ScriptedEvent(1, 7.5, 10.5, "Sad"),
    ScriptedEvent(2, 9.0, 12.0, "Surprise"),
    ScriptedEvent(1, 18.5, 21.5, "Surprise"),
    ScriptedEvent(2, 18.0, 21.0, "Angry"),
    ScriptedEvent(1, 26.5, 29.5, "Angry"),
    ScriptedEvent(2, 28.0, 31.0, "Disgust"),
    ScriptedEvent(1, 47.0, 50.0, "Disgust"),
    ScriptedEvent(2, 49.0, 52.0, "Happy"),
)
"""Each of the two shows each of the five emotions once, by time within a scene."""


@dataclass(frozen=True, eq=False)
class ScriptedFace:
    """A face that is seen in a frame.

    Attributes:
        person: 1 or 2.
        box: in pixels of the frame.
        points: float32 (15, 2), pixels of the frame.
        expression: by its name.
    """

    person: int
    box: Box
    points: NDArray[np.float32]
    expression: str


class ScriptedClip:
    """A minute of 640x480 pixels with two drawn people who cross, a cut, and ten seconds without anybody.

    Its frames are iterated as often as wanted. The frame's number is drawn as squares along the lower edge, so that
    `reader` can tell it, after compression as well.

    Args:
        fps: frames per second.
        seed: of the noise.
        start, end: seconds of the clip that are shown; frames keep their numbers and times.

    Raises:
        ConfigError: `fps` is not above 0, or has more frames than can be numbered.
    """

    def __init__(self, fps: float = 25.0, seed: int = 0, start: float = 0.0, end: float = SECONDS) -> None:
        if not 0 < fps * SECONDS < 2**_BITS:
            raise ConfigError(f"`fps` must be above 0 and below {2**_BITS / SECONDS:.0f}, got {fps}")
        self.fps, self.seed = fps, seed
        self.numbers = range(round(start * fps), round(min(end, SECONDS) * fps))

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Frame]:
        return (self.frame(number) for number in self.numbers)

    def frame(self, number: int) -> Frame:
        """One frame by its number."""
        seconds = number / self.fps
        picture = _background(seconds >= CUT).copy()
        for person in (2, 1):  # the first is in front
            if (place := _place(person, seconds)) is not None:
                head, mask = _head(person, _expression(person, seconds), place[2])
                picture.paste(head, place[:2], mask)
        for bit in range(_BITS):
            area = (bit * _BIT, HEIGHT - _BIT, (bit + 1) * _BIT - 1, HEIGHT - 1)
            ImageDraw.Draw(picture).rectangle(area, "white" if number >> bit & 1 else "black")
        noise = np.random.default_rng([self.seed, number]).integers(-4, 5, (HEIGHT, WIDTH, 1), np.int16)
        rgb = np.clip(np.asarray(picture, np.int16) + noise, 0, 255).astype(np.uint8)
        return Frame(number, seconds, rgb)

    def truth(self, number: int) -> tuple[ScriptedFace, ...]:
        """The faces that are seen in a frame, from left to right; one that is half hidden by another is not."""
        seconds = number / self.fps
        faces: list[ScriptedFace] = []
        for person in (1, 2):
            if (place := _place(person, seconds)) is None:
                continue
            expression = _expression(person, seconds)
            left, top, side = place
            scale = side / CROP_SIZE
            points = ((_drawn(person, expression)[1] + 0.5) * scale + (left - 0.5, top - 0.5)).astype(np.float32)
            face = ScriptedFace(person, box_from_points(points), points, expression)
            bounds = np.array(face.box.bounds())
            if not any(overlaps(bounds, np.array([other.box.bounds()]))[1][0] > _HIDDEN for other in faces):
                faces.append(face)
        return tuple(sorted(faces, key=lambda face: face.box.left))

    def reader(self, flicker: float = 0.1, confidence: float = 0.7, seed: int = 0) -> "ScriptedReader":
        """A function that reads the frames of this clip, with errors; arguments as of `ScriptedReader`."""
        return ScriptedReader(self, flicker, confidence, seed)


@dataclass(frozen=True)
class ScriptedReader:
    """Reads the frames of a scripted clip, decoded from a file or not: the truth, with errors like a network's.

    Attributes:
        clip: what is read.
        flicker: share of frames in which a face is taken for a random other class.
        confidence: mean probability of the class that is named.
        seed: of the errors.
    """

    clip: ScriptedClip
    flicker: float
    confidence: float
    seed: int

    def __call__(self, rgb: NDArray[np.uint8]) -> list[FaceReading]:
        """The faces of a frame, uint8 (480, 640, 3)."""
        number, gray = frame_number(rgb), np.asarray(Image.fromarray(rgb).convert("L"))
        return [self._read(gray, number, face) for face in self.clip.truth(number)]

    def _read(self, gray: NDArray[np.uint8], number: int, face: ScriptedFace) -> FaceReading:
        rng = np.random.default_rng([self.seed, number, face.person])
        points = (face.points + rng.normal(0, 0.01 * face.box.size, face.points.shape)).astype(np.float32)
        box, classes = box_from_points(points), SEVEN.names
        named = classes.index(face.expression)
        if rng.random() < self.flicker:
            named = int((named + rng.integers(1, len(classes))) % len(classes))
        weights = np.full(len(classes), (1 - self.confidence) / (len(classes) - 1))
        weights[named] = self.confidence
        expressions = rng.dirichlet(30 * weights).astype(np.float32)
        emotions = expressions[: SEVEN.emotions]
        return FaceReading(
            keypoints=box.to_crop(points),
            probabilities=emotions / emotions.sum(),
            box=box,
            points=points,
            score=0.9,
            deviations=np.full(points.shape, 0.01 * face.box.size, np.float32),
            uncertain_below=0.4,
            pose=fit_pose(points),
            quality=measure_quality(crop(gray, box)),
            expressions=expressions,
            classes=classes,
        )


def frame_number(rgb: NDArray[np.uint8]) -> int:
    """The number that is drawn into a frame of a scripted clip, uint8 (480, 640, 3)."""
    middles = np.arange(_BITS) * _BIT + _BIT // 2
    bits = rgb[HEIGHT - _BIT // 2, middles].mean(1) > 127
    return int((bits * 2 ** np.arange(_BITS)).sum())


def _expression(person: int, seconds: float) -> str:
    shown = (e.expression for e in EVENTS if e.person == person and e.start <= seconds < e.end)
    return next(shown, "Neutral")


def _place(person: int, seconds: float) -> tuple[int, int, int] | None:
    """Left, top and side of a head in a frame; None where it is not there."""
    if EMPTY[0] <= seconds < EMPTY[1] or seconds >= SECONDS - 3:
        return None
    if seconds < CUT:
        start, end = CROSSING
        walked = float(np.clip((seconds - start) / (end - start), 0, 1))
        left = 60 + 330 * walked if person == 1 else 410 - 320 * walked
        top, side = (110, 180) if person == 1 else (90, 160)
    else:
        left, top, side = (400, 150, 150) if person == 1 else (90, 120, 190)
    sway = np.sin(2 * np.pi * seconds / (3.0 + person))
    return round(left + 12 * sway), round(top + 5 * sway), side


@cache
def _drawn(person: int, expression: str) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A person's face, uint8 (96, 96), and its points: the same random numbers draw the same person."""
    return FaceDrawing(np.random.default_rng(_DRAWINGS[person - 1]), expression).draw()


@cache
def _head(person: int, expression: str, side: int) -> tuple[Image.Image, Image.Image]:
    """A head in colour, and its soft outline."""
    gray = Image.fromarray(_drawn(person, expression)[0]).resize((side, side), Image.Resampling.BICUBIC)
    colours = np.asarray(gray, np.float32)[..., None] * np.array(_TINTS[person - 1], np.float32)
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).ellipse((side * 0.02, 0, side * 0.98, side - 1), fill=255)
    return Image.fromarray(colours.astype(np.uint8)), mask.filter(ImageFilter.GaussianBlur(side / 60))


@cache
def _background(after_cut: bool) -> Image.Image:
    """A room: a wall with frames on it, another one after the cut."""
    rng = np.random.default_rng(int(after_cut))
    low, high = ((58, 74, 92), (150, 160, 168)) if after_cut else ((198, 184, 160), (96, 84, 72))
    shade = np.linspace(np.array(low), np.array(high), WIDTH if after_cut else HEIGHT)
    wall = shade[None] if after_cut else shade[:, None]
    picture = Image.fromarray(np.broadcast_to(wall, (HEIGHT, WIDTH, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(6):
        left, top = int(rng.integers(0, WIDTH - 120)), int(rng.integers(0, HEIGHT - 160))
        colour = tuple(int(value) for value in rng.integers(40, 220, 3))
        draw.rectangle((left, top, left + int(rng.integers(40, 120)), top + int(rng.integers(30, 100))), colour)
    return picture
