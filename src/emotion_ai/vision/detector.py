"""Finding faces: BlazeFace full range (Bazarevsky et al. 2019, arXiv:1907.05047) in a LiteRT interpreter.

One look covers faces from about a twelfth of the photograph's longer side upwards; group photographs have smaller ones,
so halves and quarters of it are looked at, too, and small faces are looked at once more, enlarged, for exact points.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from math import ceil
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emotion_ai.errors import MissingExtraError
from emotion_ai.vision.overlap import overlaps

_SIDE = 192
_STRIDE = 4
_SMALL = 48  # pixels of the canvas; below it the detector's points are coarse
_SURER = 0.15  # measured on composed photographs: real faces pass, enlarged knees and blurs do not
_MODEL = files("emotion_ai") / "assets" / "detector" / "blazeface_full_range_sparse.tflite"
_lock = Lock()  # an interpreter answers one call at a time


@dataclass(frozen=True)
class Detection:
    """A face in a photograph, in its pixels.

    Attributes:
        box: left, top, right, bottom.
        score: 0 to 1.
        points: float32 (6, 2): the eye of the subject's right, of the left, nose tip, mouth, right ear, left ear.
    """

    box: tuple[float, float, float, float]
    score: float
    points: NDArray[np.float32]


@dataclass(frozen=True)
class _Found:
    """Detections of one or more looks: boxes float32 (N, 4), points (N, 6, 2) in the photograph's pixels, scores (N,),
    and the side of a canvas pixel in the photograph's pixels (N,)."""

    boxes: NDArray[np.float32]
    points: NDArray[np.float32]
    scores: NDArray[np.float32]
    coarseness: NDArray[np.float32]

    def __getitem__(self, rows: NDArray[Any] | slice) -> "_Found":
        return _Found(self.boxes[rows], self.points[rows], self.scores[rows], self.coarseness[rows])


def find_faces(rgb: NDArray[np.uint8], min_score: float = 0.5) -> list[Detection]:
    """The faces in a photograph, from left to right.

    Args:
        rgb: uint8 (H, W, 3).
        min_score: detections below it are left out.

    Raises:
        MissingExtraError: the LiteRT interpreter cannot be loaded.
    """
    photo = Image.fromarray(rgb)
    longer = max(photo.size)
    found = _look(photo, 0, 0, longer, min_score)
    for tile in (longer / 2, longer / 4):
        if tile >= _SIDE:
            found = _distinct(found, *(_tile(photo, left, top, tile, min_score) for left, top in _grid(photo, tile)))
    found = _distinct(*(_closer(photo, found[i : i + 1], min_score) for i in range(len(found.scores))))
    if not len(found.scores):  # a face that fills the picture, as in the training sets, is found with some room around
        left, top = photo.width / 2 - longer, photo.height / 2 - longer
        found = _look(photo, left, top, 2 * longer, min(min_score + 0.1, 0.9))
    found = found[np.argsort(found.boxes[:, 0] + found.boxes[:, 2], kind="stable")]
    return [
        Detection((float(box[0]), float(box[1]), float(box[2]), float(box[3])), float(score), points)
        for box, score, points in zip(found.boxes, found.scores, found.points, strict=True)
    ]


def _grid(photo: Image.Image, tile: float) -> Iterator[tuple[float, float]]:
    """Corners of tiles that overlap by a quarter at least: any face missed by the look before fits into one."""
    for top in _starts(photo.height, tile):
        for left in _starts(photo.width, tile):
            yield left, top


def _starts(length: int, tile: float) -> list[float]:
    steps = max(ceil((length - tile) / (0.75 * tile)), 0)
    return [(length - tile) * i / steps for i in range(steps + 1)] if steps else [min(0.0, (length - tile) / 2)]


def _tile(photo: Image.Image, left: float, top: float, side: float, min_score: float) -> _Found:
    """A look that leaves out what its inner edges cut."""
    found = _look(photo, left, top, side, min_score)
    margin = 0.02 * side
    low = np.array([left + margin if left > 0 else -np.inf, top + margin if top > 0 else -np.inf])
    right, bottom = left + side, top + side
    high = np.array(
        [right - margin if right < photo.width else np.inf, bottom - margin if bottom < photo.height else np.inf]
    )
    whole = (found.boxes[:, :2] > low).all(1) & (found.boxes[:, 2:] < high).all(1)
    return found[np.flatnonzero(whole)]


def _closer(photo: Image.Image, face: _Found, min_score: float) -> _Found:
    """The same face as two enlarged looks see it on average, if it was small or found in a tile, and is still there.

    Enlarged backgrounds hold much that resembles a face at one scale, so it must be surer, and at both.
    """
    box = face.boxes[0]
    width = float(box[2] - box[0])
    tile = face.coarseness[0] * _SIDE < 0.99 * max(photo.size)
    if width / face.coarseness[0] >= _SMALL and not tile:
        return face
    looks = []
    for side in (3 * width, 4 * width):
        look = _look(photo, (box[0] + box[2] - side) / 2, (box[1] + box[3] - side) / 2, side, 0.1)
        looks.append(look[np.flatnonzero(overlaps(box, look.boxes)[0] > 0.3)[:1]])
    if not all(len(look.scores) for look in looks):
        return face[:0]
    mean = _Found(*(np.mean([getattr(look, field.name) for look in looks], 0) for field in fields(_Found)))
    return mean[np.flatnonzero(mean.scores >= min(min_score + _SURER, 0.9))]


def _look(photo: Image.Image, left: float, top: float, side: float, min_score: float) -> _Found:
    """What one pass of the network finds in a square of the photograph; what lies outside the photograph is black."""
    scale = _SIDE / side
    region = (max(left, 0.0), max(top, 0.0), min(left + side, photo.width), min(top + side, photo.height))
    size = (max(round((region[2] - region[0]) * scale), 1), max(round((region[3] - region[1]) * scale), 1))
    canvas = Image.new("RGB", (_SIDE, _SIDE))
    offset = (round((region[0] - left) * scale), round((region[1] - top) * scale))
    canvas.paste(photo.resize(size, Image.Resampling.BILINEAR, box=region, reducing_gap=3.0), offset)
    boxes, points, scores = _decode(*_infer(np.asarray(canvas, np.float32)[None] / 127.5 - 1))
    keep = scores >= min_score
    boxes, points, scores = _merge(boxes[keep], points[keep], scores[keep])
    factor = np.array([(region[2] - region[0]) / size[0], (region[3] - region[1]) / size[1]])
    origin = np.array(region[:2]) - offset * factor - 0.5  # the canvas has pixel edges at integers, photographs centres
    boxes = (boxes.reshape(-1, 2, 2) * factor + origin).reshape(-1, 4)
    return _Found(
        boxes.astype(np.float32),
        (points * factor + origin).astype(np.float32),
        scores,
        np.full(len(scores), side / _SIDE, np.float32),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """LiteRT announces its delegate on the process's stderr and offers no switch for it."""
    try:
        sys.stderr.flush()
        saved = os.dup(2)
    except (OSError, AttributeError, ValueError):  # no stderr: nothing to keep quiet
        yield
        return
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)


@cache
def _interpreter() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise MissingExtraError(f"finding faces needs ai-edge-litert ({error}): pip install emotion-ai") from error
    with _quiet():
        interpreter = Interpreter(model_content=_MODEL.read_bytes(), num_threads=1)
        interpreter.allocate_tensors()
    return interpreter


def _infer(pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    with _lock:
        interpreter = _interpreter()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels)
        interpreter.invoke()
        outputs = {d["shape"][-1]: interpreter.get_tensor(d["index"])[0] for d in interpreter.get_output_details()}
    return outputs[16], outputs[1]


def _decode(
    raw: NDArray[np.float32], logits: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Boxes (N, 4), points (N, 6, 2) in pixels of the 192x192 canvas, pixel edges at integers, and scores (N,)."""
    cells = (np.arange(_SIDE // _STRIDE, dtype=np.float32) + 0.5) * _STRIDE
    anchors = np.stack(np.meshgrid(cells, cells), -1).reshape(-1, 1, 2)
    pairs = raw.reshape(-1, 8, 2)
    centre, half = pairs[:, :1] + anchors, pairs[:, 1:2] / 2
    boxes = np.concatenate([centre - half, centre + half], 1).reshape(-1, 4)
    scores = 1 / (1 + np.exp(-logits[:, 0].clip(-80, 80)))
    return boxes, pairs[:, 2:] + anchors, scores


def _merge(
    boxes: NDArray[np.float32], points: NDArray[np.float32], scores: NDArray[np.float32], overlap: float = 0.3
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """The paper's replacement of non-maximum suppression: overlapping detections are averaged by their scores; the
    surest first."""
    rest = np.argsort(-scores, kind="stable")
    merged_boxes, merged_points, best = [], [], []
    while len(rest):
        group = overlaps(boxes[rest[0]], boxes[rest])[0] > overlap
        group[0] = True
        weight = scores[rest[group]] / scores[rest[group]].sum()
        merged_boxes.append((boxes[rest[group]] * weight[:, None]).sum(0))
        merged_points.append((points[rest[group]] * weight[:, None, None]).sum(0))
        best.append(scores[rest[0]])
        rest = rest[~group]
    return (
        np.array(merged_boxes, np.float32).reshape(-1, 4),
        np.array(merged_points, np.float32).reshape(-1, 6, 2),
        np.array(best, np.float32),
    )


def _distinct(*looks: _Found) -> _Found:
    """The detections of several looks, each face once, as the earliest look has it.

    A detection mostly inside another is no second face: enlarged, a mouth or an ear at times looks like one.
    """
    kept: list[_Found] = []
    for look in looks:
        for i in range(len(look.scores)):
            shares = (overlaps(look.boxes[i], other.boxes) for other in kept)
            if all(union[0] <= 0.3 and smaller[0] <= 0.5 for union, smaller in shares):
                kept.append(look[i : i + 1])
    if not kept:
        return _Found(*(np.zeros(shape, np.float32) for shape in ((0, 4), (0, 6, 2), 0, 0)))
    return _Found(
        np.concatenate([face.boxes for face in kept]),
        np.concatenate([face.points for face in kept]),
        np.concatenate([face.scores for face in kept]),
        np.concatenate([face.coarseness for face in kept]),
    )
