"""Finding faces: BlazeFace full range (Bazarevsky et al. 2019, arXiv:1907.05047) in a LiteRT interpreter."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emotion_ai.errors import MissingExtraError

_SIDE = 192
_STRIDE = 4
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


def find_faces(rgb: NDArray[np.uint8], min_score: float = 0.5) -> list[Detection]:
    """The faces in a photograph, the surest first.

    Args:
        rgb: uint8 (H, W, 3).
        min_score: detections below it are left out.
    """
    height, width = rgb.shape[:2]
    scale = _SIDE / max(height, width)
    small = Image.fromarray(rgb).resize(
        (max(round(width * scale), 1), max(round(height * scale), 1)), Image.Resampling.BILINEAR, reducing_gap=3.0
    )
    canvas = Image.new("RGB", (_SIDE, _SIDE))
    offset = ((_SIDE - small.width) // 2, (_SIDE - small.height) // 2)
    canvas.paste(small, offset)
    boxes, points, scores = _decode(*_infer(np.asarray(canvas, np.float32)[None] / 127.5 - 1))
    keep = scores >= min_score
    merged = _merge(boxes[keep], points[keep], scores[keep])
    factor = np.array([width / small.width, height / small.height], np.float32)
    return [
        Detection(
            tuple(float(v) for v in ((box.reshape(2, 2) - offset) * factor - 0.5).ravel()),  # type: ignore[arg-type]
            score,
            ((face - offset) * factor - 0.5).astype(np.float32),
        )
        for box, face, score in merged
    ]


@cache
def _interpreter() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise MissingExtraError(f"finding faces needs ai-edge-litert ({error}): pip install emotion-ai") from error
    with as_file(_MODEL) as path:
        interpreter = Interpreter(model_content=path.read_bytes(), num_threads=1)
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
) -> list[tuple[NDArray[np.float32], NDArray[np.float32], float]]:
    """The paper's replacement of non-maximum suppression: overlapping detections are averaged by their scores."""
    rest = np.argsort(-scores, kind="stable")
    found = []
    while len(rest):
        shared = _intersection_over_union(boxes[rest[0]], boxes[rest])
        group = rest[shared > overlap] if (shared > overlap).any() else rest[:1]
        weight = scores[group] / scores[group].sum()
        found.append(
            (
                (boxes[group] * weight[:, None]).sum(0),
                (points[group] * weight[:, None, None]).sum(0),
                float(scores[rest[0]]),
            )
        )
        rest = rest[~np.isin(rest, group)]
    return found


def _intersection_over_union(box: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    size = (np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])).clip(0)
    shared = size.prod(1)
    area = (others[:, 2:] - others[:, :2]).clip(0).prod(1)
    return shared / np.maximum((box[2:] - box[:2]).clip(0).prod() + area - shared, 1e-6)  # type: ignore[no-any-return]
