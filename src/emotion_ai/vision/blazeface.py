"""BlazeFace full range (Bazarevsky et al. 2019, arXiv:1907.05047) in a LiteRT interpreter: one pass over a canvas."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_ai.errors import MissingExtraError
from emotion_ai.vision.overlap import overlaps

CANVAS = 192
"""Side of the network's input, in pixels."""

Boxes = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
"""Of N detections: boxes (N, 4), left, top, right, bottom; points (N, 6, 2); scores (N,). Pixels of the canvas, with
pixel edges at integers."""

_STRIDE = 4
_MODEL = files("emotion_ai") / "assets" / "detector" / "blazeface_full_range_sparse.tflite"
_lock = Lock()  # an interpreter runs one call at a time


def detect(canvas: NDArray[np.uint8], min_score: float) -> Boxes:
    """The faces in a canvas, uint8 (192, 192, 3), by descending score.

    Raises:
        MissingExtraError: the LiteRT interpreter cannot be loaded.
    """
    boxes, points, scores = _decode(*_infer(canvas.astype(np.float32)[None] / 127.5 - 1))
    keep = scores >= min_score
    return _merge(boxes[keep], points[keep], scores[keep])


def _infer(pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    with _lock:
        interpreter = _interpreter()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels)
        interpreter.invoke()
        outputs = {d["shape"][-1]: interpreter.get_tensor(d["index"])[0] for d in interpreter.get_output_details()}
    return outputs[16], outputs[1]


def _decode(raw: NDArray[np.float32], logits: NDArray[np.float32]) -> Boxes:
    """One detection per anchor."""
    cells = (np.arange(CANVAS // _STRIDE, dtype=np.float32) + 0.5) * _STRIDE
    anchors = np.stack(np.meshgrid(cells, cells), -1).reshape(-1, 1, 2)
    pairs = raw.reshape(-1, 8, 2)
    centre, half = pairs[:, :1] + anchors, pairs[:, 1:2] / 2
    boxes = np.concatenate([centre - half, centre + half], 1).reshape(-1, 4)
    scores = 1 / (1 + np.exp(-logits[:, 0].clip(-80, 80)))
    return boxes, pairs[:, 2:] + anchors, scores


def _merge(
    boxes: NDArray[np.float32], points: NDArray[np.float32], scores: NDArray[np.float32], overlap: float = 0.3
) -> Boxes:
    """Averages overlapping detections by their scores, the paper's replacement of non-maximum suppression."""
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


@cache
def _interpreter() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise MissingExtraError(f"face detection needs ai-edge-litert ({error}): pip install emotion-ai") from error
    with _quiet():
        interpreter = Interpreter(model_content=_MODEL.read_bytes(), num_threads=1)
        interpreter.allocate_tensors()
    return interpreter


def _after_fork() -> None:
    """Starts afresh: another thread may have held the lock, and the interpreter, when the process was forked."""
    global _lock
    _lock = Lock()
    _interpreter.cache_clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the process's stderr, where LiteRT announces its delegate without an option against it."""
    try:
        sys.stderr.flush()
        saved = os.dup(2)
    except (OSError, AttributeError, ValueError):  # no stderr
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
