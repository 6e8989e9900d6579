"""Synthetic faces: a seeded, procedural generator of 96x96 gray faces with exact points and one of the five emotions.

They are the embedded default: enough for both networks to learn from visibly in a minute, and free of anybody's rights.
Face i depends on (seed, i) alone. A face is drawn as shaded soft shapes in coordinates of its own (x to the image's right,
y down, the eyes' distance about 0.74 apart), which a roll, a scale and a shift then place in the frame.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from emotion_ai.contract import EMOTIONS, FRAME, KEYPOINTS, Task
from emotion_ai.data.arrays import Faces

_UNIT = 48.6  # pixels of the frame in one unit of the face
_ORIGIN = (47.5, 56.5)  # where the face's origin, between eyes and mouth, lies on average
_VERSION = 1  # of the drawing; part of the fingerprint

Field = NDArray[np.float32]


@dataclass(frozen=True)
class SyntheticFaces:
    """Faces with both kinds of targets.

    Attributes:
        images: uint8 (N, 96, 96), 0-255.
        points: float32 (N, 15, 2), pixels of the frame, all known.
        labels: int64 (N,), indices into `contract.EMOTIONS`.
        fingerprint: of the generator and its arguments.
    """

    images: NDArray[np.uint8]
    points: NDArray[np.float32]
    labels: NDArray[np.int64]
    fingerprint: str

    def faces(self, task: Task) -> Faces:
        """The faces with the targets of one task."""
        targets = self.points if task == "keypoints" else self.labels
        part = np.full(len(self.images), "", "U11")
        return Faces(task, self.images, targets, part, "synthetic", self.fingerprint)


def synthetic_faces(count: int, seed: int) -> SyntheticFaces:
    """The first `count` faces of a seed; classes are balanced in every five successive faces."""
    images = np.empty((count, FRAME, FRAME), np.uint8)
    points = np.empty((count, len(KEYPOINTS), 2), np.float32)
    labels = np.empty(count, np.int64)
    for i in range(count):
        labels[i] = np.random.default_rng([seed, i // len(EMOTIONS)]).permutation(len(EMOTIONS))[i % len(EMOTIONS)]
        images[i], points[i] = _Face(np.random.default_rng([seed, i, 1]), EMOTIONS[labels[i]]).draw()
    mark = hashlib.sha256(f"synthetic v{_VERSION} {count} {seed}".encode()).hexdigest()
    return SyntheticFaces(images, points, labels, mark)


@dataclass(frozen=True)
class _Expression:
    """Ranges from which an expression's shape is drawn, in units of the face."""

    brow_inner: tuple[float, float]  # raised by
    brow_outer: tuple[float, float]
    brow_pinch: tuple[float, float]  # inner ends moved together by
    lid: tuple[float, float]  # openness of the eye
    lower_lid: tuple[float, float]  # raised by, share of the opening
    corner: tuple[float, float]  # corners of the mouth raised by
    width: tuple[float, float]  # half width of the mouth
    opening: tuple[float, float]  # between the lips
    upper_lip: tuple[float, float]  # raised by
    wrinkle: tuple[float, float]  # beside the nose


_EXPRESSIONS = {
    "Angry": _Expression(
        (-0.10, -0.06), (0.00, 0.06), (0.03, 0.06), (0.055, 0.075), (0.1, 0.3), (-0.06, -0.01), (0.25, 0.31), (0.0, 0.05),
        (0.0, 0.01), (0.1, 0.4),
    ),
    "Disgust": _Expression(
        (-0.07, -0.03), (-0.04, 0.0), (0.01, 0.04), (0.035, 0.055), (0.4, 0.6), (-0.06, 0.0), (0.22, 0.29), (0.02, 0.09),
        (0.04, 0.08), (0.7, 1.0),
    ),
    "Sad": _Expression(
        (0.05, 0.10), (-0.06, -0.02), (0.01, 0.04), (0.045, 0.065), (0.0, 0.1), (-0.12, -0.07), (0.24, 0.29), (0.0, 0.02),
        (0.0, 0.01), (0.0, 0.1),
    ),
    "Happy": _Expression(
        (0.0, 0.04), (0.0, 0.04), (-0.01, 0.01), (0.050, 0.075), (0.3, 0.5), (0.08, 0.14), (0.34, 0.42), (0.04, 0.15),
        (0.0, 0.02), (0.0, 0.1),
    ),
    "Surprise": _Expression(
        (0.09, 0.15), (0.08, 0.14), (-0.02, 0.01), (0.105, 0.14), (0.0, 0.05), (-0.03, 0.02), (0.17, 0.23), (0.20, 0.34),
        (0.01, 0.03), (0.0, 0.05),
    ),
}  # fmt: skip


class _Face:
    """One face: draws all its numbers at once, then the picture and the points from the same numbers."""

    def __init__(self, rng: np.random.Generator, emotion: str) -> None:
        self.rng = rng
        shape = _EXPRESSIONS[emotion]
        self.e = {name: rng.uniform(*getattr(shape, name)) for name in shape.__dataclass_fields__}
        self.yaw, self.pitch = rng.normal(0, 0.28), rng.normal(0, 0.2)
        self.eye_x = 0.37 + rng.normal(0, 0.012)
        self.eye_y = -0.38 + 0.03 * self.pitch
        self.nose_y = 0.125 + rng.normal(0, 0.02) + 0.08 * self.pitch
        self.mouth_y = 0.40 + rng.normal(0, 0.015) + 0.05 * self.pitch
        self.brow_y = -0.565 + rng.normal(0, 0.012)
        self.face_width = 0.78 + rng.normal(0, 0.035)
        self.skin = rng.uniform(95, 215)
        self.hair = rng.uniform(12, 90) if rng.random() < 0.8 else rng.uniform(120, 220)

    def draw(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        rng = self.rng
        angle, scale = np.deg2rad(rng.normal(0, 6)), _UNIT * np.exp(rng.normal(0, 0.05))
        origin = np.array(_ORIGIN) + rng.normal(0, 1.8, 2)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        points = self._points() @ turn.T + origin
        steps = np.arange(FRAME, dtype=np.float32)
        dx, dy = steps[None, :] - np.float32(origin[0]), steps[:, None] - np.float32(origin[1])
        inverse = np.linalg.inv(turn).astype(np.float32)
        x, y = inverse[0, 0] * dx + inverse[0, 1] * dy, inverse[1, 0] * dx + inverse[1, 1] * dy
        return self._photograph(self._paint(x, y)), points.astype(np.float32)

    def _turned(self, x: float, y: float, depth: float) -> tuple[float, float]:
        """A place of the frontal face, seen under yaw and pitch; `depth` is how far it stands out."""
        return x * np.cos(self.yaw) + depth * np.sin(self.yaw), y + depth * np.sin(self.pitch) * 0.5

    def _points(self) -> NDArray[np.float64]:
        e, turned = self.e, self._turned
        at: dict[str, tuple[float, float]] = {"nose_tip": turned(0, self.nose_y, 0.16)}
        for side, sign in (("left", 1), ("right", -1)):  # the subject's left is on the image's right
            at[f"{side}_eye_center"] = turned(sign * self.eye_x, self.eye_y, 0.0)
            at[f"{side}_eye_inner_corner"] = turned(sign * (self.eye_x - 0.145), self.eye_y + 0.01, 0.01)
            at[f"{side}_eye_outer_corner"] = turned(sign * (self.eye_x + 0.145), self.eye_y, -0.04)
            inner = sign * (0.17 - e["brow_pinch"])
            at[f"{side}_eyebrow_inner_end"] = turned(inner, self.brow_y - e["brow_inner"], 0.05)
            at[f"{side}_eyebrow_outer_end"] = turned(sign * 0.655, self.brow_y + 0.02 - e["brow_outer"], -0.1)
            at[f"mouth_{side}_corner"] = turned(sign * e["width"], self.mouth_y - e["corner"], 0.02)
        lip = 0.065 + e["upper_lip"]
        at["mouth_center_top_lip"] = turned(0, self.mouth_y - lip - e["opening"] * 0.25, 0.08)
        at["mouth_center_bottom_lip"] = turned(0, self.mouth_y + 0.075 + e["opening"] * 0.75, 0.07)
        self.at = at
        return np.array([at[name] for name in KEYPOINTS])

    def _paint(self, x: Field, y: Field) -> Field:
        picture = self._background(x, y)
        picture = self._neck_and_hair(x, y, picture)
        picture = self._head(x, y, picture)
        for side, sign in (("left", 1), ("right", -1)):
            picture = self._eye(x, y, picture, side, sign)
            picture = self._brow(x, y, picture, side, sign)
        picture = self._nose(x, y, picture)
        picture = self._mouth(x, y, picture)
        return self._fringe_and_glasses(x, y, picture)

    def _background(self, x: Field, y: Field) -> Field:
        rng = self.rng
        low, high = rng.uniform(30, 220, 2)
        tilt = rng.uniform(0, 2 * np.pi)
        return _mix(low, high, _soft(np.cos(tilt) * x + np.sin(tilt) * y, 1.2))

    def _neck_and_hair(self, x: Field, y: Field, picture: Field) -> Field:
        rng, lean = self.rng, 0.12 * np.sin(self.yaw)
        if rng.random() < 0.85:  # hair behind the head, short or long
            length = rng.uniform(0.2, 1.5) if rng.random() < 0.5 else rng.uniform(-0.3, 0.1)
            behind = _ellipse(x - lean, y + 0.42, self.face_width + rng.uniform(0.04, 0.16), 0.86, 0.04)
            falls = (
                _soft(self.face_width + 0.13 - np.abs(x - lean), 0.04) * _soft(length - y, 0.05) * _soft(y + 0.5, 0.1)
            )
            strands = 1 + 0.10 * np.sin(x * rng.uniform(25, 50) + 3 * np.sin(y * 3))
            picture = _mix(picture, self.hair * strands, np.maximum(behind, falls))
        neck = _soft(0.42 - np.abs(x), 0.03) * _soft(y - 0.5, 0.1)
        return _mix(picture, self.skin * 0.62, neck)

    def _head(self, x: Field, y: Field, picture: Field) -> Field:
        rng = self.rng
        width = self.face_width - 0.10 * np.clip(y - 0.1, 0, 1)  # the chin is narrower than the cheeks
        lean = 0.10 * np.sin(self.yaw)
        inside = _ellipse((x - lean) / width, (y + 0.10) / 0.98, 1, 1, 0.03)
        light, strength = rng.uniform(-1, 1), rng.uniform(0.05, 0.32)
        roundness = np.sqrt(np.clip(1 - ((x - lean) / width) ** 2 * 0.85 - ((y + 0.1) / 1.05) ** 2 * 0.6, 0.05, 1))
        shade = 0.55 + 0.45 * roundness + strength * (light * x - 0.35 * y)
        self.shade = np.clip(shade, 0.3, 1.25).astype(np.float32)
        skin = self.skin * self.shade
        cheeks = max(self.e["corner"], 0) * 2.2
        for sign in (1, -1):
            skin = skin * (1 + cheeks * _blob(x - sign * 0.43, y - 0.10, 0.15, 0.12))
            skin = skin * (
                1 - cheeks * 0.5 * _ring(x - sign * 0.36, y - 0.20, 0.26, 0.30, 0.05) * _soft(0.32 - y, 0.08)
            )
        if rng.random() < 0.2:  # a beard
            beard = _soft(y - 0.12 - 0.35 * (1 - np.abs(x) / 0.8), 0.08) * _soft(
                np.hypot(x, (y - 0.4) * 1.2) - 0.33, 0.06
            )
            skin = _mix(skin, self.hair, rng.uniform(0.3, 0.75) * beard)
        return _mix(picture, skin, inside)

    def _eye(self, x: Field, y: Field, picture: Field, side: str, sign: int) -> Field:
        rng, e, dark = self.rng, self.e, 0.25 * self.skin
        ex, ey = self.at[f"{side}_eye_center"]
        (ix, iy), (ox, oy) = self.at[f"{side}_eye_inner_corner"], self.at[f"{side}_eye_outer_corner"]
        half = abs(ox - ix) / 2
        u = (x - (ix + ox) / 2) / half
        line = iy + (oy - iy) * (x - ix) / (ox - ix)
        arch = np.clip(1 - u**2, 0, 1)
        top, bottom = line - e["lid"] * arch**0.7, line + e["lid"] * (0.75 - e["lower_lid"]) * arch**0.8
        picture = picture * (1 - 0.28 * _blob(x - ex, y - ey + 0.02, 0.24, 0.13))  # the socket
        edge = 0.008
        inside = _soft(y - top, edge) * _soft(bottom - y, edge) * _soft(1 - np.abs(u), 0.03)
        white = np.minimum(self.skin * 0.35 + 135, 240) * np.minimum(self.shade, 1.0)
        gaze = 0.03 * np.sin(self.yaw)
        distance = np.hypot(x - ex - gaze, y - ey)
        iris = _mix(white, 25 + 0.25 * self.hair, _soft(0.068 - distance, 0.008))
        iris = _mix(iris, 12.0, _soft(0.033 - distance, 0.008))
        iris = _mix(iris, 235.0, 0.9 * _blob(x - ex - 0.02, y - ey + 0.02, 0.012, 0.012))
        picture = _mix(picture, iris, inside)
        lash = np.exp(-(((y - top) / 0.018) ** 2)) * _soft(1.05 - np.abs(u), 0.05)
        fold = np.exp(-(((y - top + 0.045) / 0.014) ** 2)) * _soft(0.9 - np.abs(u), 0.1)
        picture = _mix(picture, dark, 0.85 * lash)
        picture = picture * (1 - 0.22 * fold)
        under = np.exp(-(((y - bottom) / 0.014) ** 2)) * _soft(1 - np.abs(u), 0.1)
        return picture * (1 - (0.25 + 0.5 * e["lower_lid"]) * under)

    def _brow(self, x: Field, y: Field, picture: Field, side: str, sign: int) -> Field:
        (ix, iy), (ox, oy) = self.at[f"{side}_eyebrow_inner_end"], self.at[f"{side}_eyebrow_outer_end"]
        t = (x - ix) / (ox - ix)
        line = iy + (oy - iy) * t - 0.055 * np.clip(4 * t * (1 - t), 0, 1)
        thick = 0.034 * (1.15 - 0.65 * np.clip(t, 0, 1))
        inside = _soft(thick - np.abs(y - line), 0.012) * _soft(t + 0.01, 0.02) * _soft(1.01 - t, 0.02)
        picture = _mix(picture, min(self.hair, self.skin * 0.45), 0.85 * inside)
        frown = (
            max(self.e["brow_pinch"], 0)
            * 8
            * np.exp(-(((x - ix + sign * 0.085) / 0.014) ** 2))
            * _blob(0 * x, y - iy, 1, 0.1)
        )
        return picture * (1 - np.clip(frown, 0, 0.5))

    def _nose(self, x: Field, y: Field, picture: Field) -> Field:
        nx, ny = self.at["nose_tip"]
        bridge = nx * np.clip((y + 0.4) / (ny + 0.4), 0, 1)
        side = 0.4 * self.skin
        light = 1 if self.yaw < 0 else -1
        long = _soft(y + 0.30, 0.12) * _soft(ny + 0.05 - y, 0.05)
        picture = picture * (1 - 0.16 * np.exp(-(((x - bridge - light * 0.10) / 0.05) ** 2)) * long)
        picture = picture * (1 + 0.10 * np.exp(-(((x - bridge) / 0.04) ** 2)) * long)
        picture = picture * (1 + 0.18 * _blob(x - nx, y - ny + 0.01, 0.06, 0.05))
        for sign in (1, -1):
            picture = _mix(picture, side * 0.5, 0.75 * _blob(x - nx * 0.8 - sign * 0.065, y - ny - 0.065, 0.033, 0.018))
            picture = picture * (1 - 0.25 * _ring(x - nx * 0.8 - sign * 0.125, y - ny - 0.03, 0.05, 0.06, 0.018))
            fold = np.exp(-(((x - nx * 0.5 - sign * (0.17 + 0.35 * (y - ny))) / 0.022) ** 2))
            picture = picture * (1 - (0.08 + 0.4 * self.e["wrinkle"]) * fold * _blob(0 * x, y - ny - 0.1, 1, 0.14))
            crease = np.abs(np.sin((y + 0.25) * 55)) * _blob(x - nx * 0.4 - sign * 0.07, y + 0.20, 0.05, 0.09)
            picture = picture * (1 - 0.4 * self.e["wrinkle"] * crease)
        return picture * (1 - 0.3 * _blob(x - nx * 0.8, y - ny - 0.10, 0.10, 0.025))

    def _mouth(self, x: Field, y: Field, picture: Field) -> Field:
        e, rng = self.e, self.rng
        (lx, ly), (rx, ry) = self.at["mouth_left_corner"], self.at["mouth_right_corner"]
        (cx, ct), (_, cb) = self.at["mouth_center_top_lip"], self.at["mouth_center_bottom_lip"]
        u = np.where(x > cx, (x - cx) / max(lx - cx, 1e-3), (x - cx) / max(cx - rx, 1e-3))
        corner = np.where(x > cx, ly, ry)
        curve = np.clip(np.abs(u), 0, 1) ** 2
        within = _soft(1 - np.abs(u), 0.02)
        upper, lower = ct + (corner - ct) * curve, cb + (corner - cb) * curve
        upper = upper + 0.018 * np.exp(-((u / 0.18) ** 2)) - 0.018  # the cupid's bow dips to the point at its centre
        upper = upper + 0.018 * (1 - np.exp(-((u / 0.18) ** 2))) * curve
        slit = e["opening"]
        inner_top = ct + 0.058 + (corner - ct - 0.058) * curve
        inner_bottom = np.maximum(cb - 0.072 + (corner - cb + 0.072) * curve, inner_top)
        lips = self.skin * rng.uniform(0.55, 0.75) * self.shade
        edge = 0.010
        picture = _mix(picture, lips, 0.9 * _soft(y - upper, edge) * _soft(lower - y, edge) * within)
        picture = picture * (1 + 0.18 * _blob(x - cx, y - cb + 0.035, 0.12, 0.02))
        if slit > 0.015:
            hollow = _soft(y - inner_top, edge) * _soft(inner_bottom - y, edge) * within
            teeth = _soft(inner_top + min(0.09, 0.75 * slit) - y, 0.012)
            shown = 0.95 if e["corner"] > 0.05 else 0.3
            inside = _mix(np.float32(28.0) + 0 * x, 225 * np.minimum(self.shade, 1.0), shown * teeth)
            picture = _mix(picture, inside, hollow)
        seam = np.exp(-(((y - (inner_top + inner_bottom) / 2) / 0.012) ** 2)) * within * (slit <= 0.015)
        picture = _mix(picture, 0.22 * self.skin, 0.85 * seam)
        for px, py in ((lx, ly), (rx, ry)):
            picture = picture * (1 - 0.35 * _blob(x - px, y - py, 0.035, 0.03))
        return picture * (1 - 0.22 * _blob(x - cx, y - cb - 0.055, 0.14, 0.03))

    def _fringe_and_glasses(self, x: Field, y: Field, picture: Field) -> Field:
        rng = self.rng
        if rng.random() < 0.75:
            height, part = rng.uniform(-0.98, -0.74), rng.uniform(-0.5, 0.5)
            line = height + rng.uniform(0.0, 0.25) * (x - part) ** 2 - 0.04 * np.cos(x * rng.uniform(4, 9))
            hair = self.hair * (1 + 0.12 * np.sin(x * rng.uniform(20, 45) + 4 * y))
            cap = _ellipse(x, y + 0.42, self.face_width + 0.05, 0.82, 0.04)
            picture = _mix(picture, hair, _soft(line - y, 0.03) * cap)
        if rng.random() < 0.18:
            frame, reach = rng.uniform(15, 70), rng.uniform(0.20, 0.25)
            for side in ("left", "right"):
                ex, ey = self.at[f"{side}_eye_center"]
                lens = np.abs((x - ex) / reach) ** 3 + np.abs((y - ey - 0.02) / (reach * 0.8)) ** 3
                picture = _mix(picture, frame, 0.9 * np.exp(-(((lens - 1) / 0.16) ** 2)))
            (lx, ly), (rx, _) = self.at["left_eye_center"], self.at["right_eye_center"]
            bridge = (
                _soft(0.014 - np.abs(y - ly + 0.02), 0.01) * _soft(lx - reach - x, 0.01) * _soft(x - rx - reach, 0.01)
            )
            picture = _mix(picture, frame, 0.9 * bridge)
        return picture

    def _photograph(self, picture: Field) -> NDArray[np.uint8]:
        rng = self.rng
        gain, offset = rng.uniform(0.65, 1.15), rng.uniform(-15, 25)
        picture = (picture - 110) * gain + 110 + offset
        image = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
        if rng.random() < 0.5:
            image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 1.0)))
        noisy = np.asarray(image, np.float32) + rng.normal(0, rng.uniform(0, 7), (FRAME, FRAME))
        return np.rint(noisy.clip(0, 255)).astype(np.uint8)


def _soft(distance: Field | float, edge: float) -> Field:
    """1 where the distance is positive, 0 where negative, smooth over about `edge`."""
    return (0.5 + 0.5 * np.clip(np.asarray(distance, np.float32) / edge, -1, 1)).astype(np.float32)


def _mix(below: Field | float, above: Field | float, share: Field) -> Field:
    return (below + (above - below) * share).astype(np.float32)


def _blob(dx: Field, dy: Field, wide: float, high: float) -> Field:
    return np.exp(-((dx / wide) ** 2) - (dy / high) ** 2).astype(np.float32)


def _ellipse(dx: Field, dy: Field, wide: float, high: float, edge: float) -> Field:
    return _soft(1 - np.hypot(dx / wide, dy / high), edge)


def _ring(dx: Field, dy: Field, wide: float, high: float, edge: float) -> Field:
    return np.exp(-(((np.hypot(dx / wide, dy / high) - 1) * min(wide, high) / edge) ** 2)).astype(np.float32)
