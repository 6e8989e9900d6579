"""Drawing one synthetic face: its picture and its points come from the same random numbers.

A face is painted as shaded soft shapes in face coordinates (x to the image's right, y down, eyes about 0.74 apart),
which a roll, a scale and a shift then place in the crop.
"""

from dataclasses import dataclass, fields
from math import cos, exp, pi, radians, sin

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from emotion_ai.contract import CROP_SIZE, KEYPOINTS

_UNIT = 48.6  # pixels of the crop in one unit of the face
_ORIGIN = (47.5, 56.5)  # mean position of the face's origin, between eyes and mouth

Field = NDArray[np.floating]


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
    wrinkle: tuple[float, float]  # of the nose and beside it
    teeth: tuple[float, float]  # share of their brightness


_EXPRESSIONS = {
    "Angry": _Expression(
        (-0.10, -0.06), (0.00, 0.06), (0.03, 0.06), (0.055, 0.075), (0.1, 0.3), (-0.05, -0.01),
        (0.26, 0.33), (0.0, 0.04), (-0.01, 0.0), (0.1, 0.4), (0.6, 1.0),
    ),
    "Disgust": _Expression(
        (-0.07, -0.03), (-0.04, 0.0), (0.01, 0.04), (0.035, 0.055), (0.4, 0.6), (-0.05, 0.01),
        (0.25, 0.32), (0.02, 0.08), (0.04, 0.07), (0.7, 1.0), (0.3, 0.9),
    ),
    "Sad": _Expression(
        (0.05, 0.10), (-0.06, -0.02), (0.01, 0.04), (0.045, 0.065), (0.0, 0.1), (-0.11, -0.06),
        (0.25, 0.31), (0.0, 0.015), (0.0, 0.01), (0.0, 0.1), (0.0, 0.3),
    ),
    "Happy": _Expression(
        (0.0, 0.04), (0.0, 0.04), (-0.01, 0.01), (0.055, 0.08), (0.25, 0.45), (0.07, 0.13),
        (0.35, 0.43), (0.03, 0.14), (0.0, 0.02), (0.0, 0.1), (0.9, 1.0),
    ),
    "Surprise": _Expression(
        (0.09, 0.14), (0.07, 0.12), (-0.02, 0.01), (0.105, 0.135), (0.0, 0.05), (-0.03, 0.02),
        (0.18, 0.25), (0.16, 0.29), (0.0, 0.02), (0.0, 0.05), (0.0, 0.6),
    ),
    "Fear": _Expression(
        (0.08, 0.13), (-0.01, 0.04), (0.03, 0.06), (0.095, 0.125), (0.0, 0.1), (-0.08, -0.04),
        (0.31, 0.38), (0.06, 0.12), (0.0, 0.02), (0.0, 0.1), (0.5, 1.0),
    ),
    "Neutral": _Expression(
        (-0.01, 0.02), (-0.01, 0.02), (-0.01, 0.01), (0.07, 0.09), (0.0, 0.1), (-0.02, 0.02),
        (0.26, 0.32), (0.0, 0.01), (0.0, 0.01), (0.0, 0.05), (0.0, 0.2),
    ),
}  # fmt: skip


DRAWN = tuple(_EXPRESSIONS)
"""The expressions that can be drawn."""


class FaceDrawing:
    """One face with an emotion, drawn from `rng`."""

    def __init__(self, rng: np.random.Generator, emotion: str) -> None:
        self.rng = rng
        ranges = _EXPRESSIONS[emotion]
        self.e = {field.name: rng.uniform(*getattr(ranges, field.name)) for field in fields(ranges)}
        self.yaw = min(max(rng.normal(0, 0.25), -0.55), 0.55)
        self.pitch = rng.normal(0, 0.2)
        self.lean = -0.22 * sin(self.yaw)  # the head's outline stands behind the features
        self.eye_x = 0.37 + rng.normal(0, 0.012)
        self.eye_y = -0.38 + 0.03 * self.pitch
        self.nose_y = 0.12 + rng.normal(0, 0.02) + 0.08 * self.pitch
        self.mouth_y = 0.39 + rng.normal(0, 0.015) + 0.05 * self.pitch
        self.brow_y = -0.55 + rng.normal(0, 0.012)
        self.width = 0.84 + rng.normal(0, 0.03)
        self.jaw = rng.uniform(0.05, 0.3)
        self.lip = rng.uniform(0.8, 1.2)
        self.skin = rng.uniform(85, 215)
        self.hair = rng.uniform(12, 85) if rng.random() < 0.8 else rng.uniform(105, 165)
        self.length = rng.uniform(0.2, 1.5) if rng.random() < 0.4 else rng.uniform(-0.5, -0.15)  # where hair ends
        self.bald = rng.random() < 0.1

    def draw(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The picture, uint8 (96, 96), and its points, float32 (15, 2) in pixels of the crop."""
        rng = self.rng
        angle = radians(min(max(rng.normal(0, 6), -15), 15))
        self.scale = _UNIT * exp(min(max(rng.normal(0, 0.05), -0.1), 0.1))
        self.origin = np.array(_ORIGIN) + rng.normal(0, 1.8, 2)
        self.turn = self.scale * np.array([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])
        points = self._points() @ self.turn.T
        self.origin = np.clip(self.origin, 1 - points.min(0), CROP_SIZE - 2 - points.max(0))  # no point leaves the crop
        points += self.origin
        to_face = np.linalg.inv(self.turn).astype(np.float32)
        steps = np.arange(CROP_SIZE, dtype=np.float32)
        dx, dy = steps[None, :] - np.float32(self.origin[0]), steps[:, None] - np.float32(self.origin[1])
        self.x = to_face[0, 0] * dx + to_face[0, 1] * dy
        self.y = to_face[1, 0] * dx + to_face[1, 1] * dy
        self.picture = np.empty((CROP_SIZE, CROP_SIZE), np.float32)
        self._paint()
        return self._photograph(), points.astype(np.float32)

    def _turned(self, x: float, y: float, depth: float) -> tuple[float, float]:
        """A point of the frontal face under yaw and pitch; `depth` is how far it stands out."""
        return x * cos(self.yaw) + depth * sin(self.yaw), y + depth * sin(self.pitch) * 0.5

    def _points(self) -> NDArray[np.float64]:
        e, turned = self.e, self._turned
        at: dict[str, tuple[float, float]] = {"nose_tip": turned(0, self.nose_y, 0.16)}
        for side, sign in (("left", 1), ("right", -1)):  # the subject's left is on the image's right
            at[f"{side}_eye_center"] = turned(sign * self.eye_x, self.eye_y, 0.0)
            at[f"{side}_eye_inner_corner"] = turned(sign * (self.eye_x - 0.145), self.eye_y + 0.01, 0.01)
            at[f"{side}_eye_outer_corner"] = turned(sign * (self.eye_x + 0.145), self.eye_y, -0.04)
            inner = sign * (0.185 - e["brow_pinch"])
            at[f"{side}_eyebrow_inner_end"] = turned(inner, self.brow_y - e["brow_inner"], 0.05)
            at[f"{side}_eyebrow_outer_end"] = turned(sign * 0.655, self.brow_y + 0.02 - e["brow_outer"], -0.1)
            at[f"mouth_{side}_corner"] = turned(sign * e["width"], self.mouth_y - e["corner"], 0.02)
        top = self.mouth_y - 0.05 * self.lip - e["upper_lip"] - e["opening"] * 0.25
        at["mouth_center_top_lip"] = turned(0, top, 0.08)
        at["mouth_center_bottom_lip"] = turned(0, self.mouth_y + 0.06 * self.lip + e["opening"] * 0.75, 0.07)
        self.at = at
        return np.array([at[name] for name in KEYPOINTS])

    def _near(self, x: float, y: float, reach: float) -> tuple[Field, Field, Field, Field]:
        """Views of x, y, the picture and the light around a point: cheaper than painting the whole crop."""
        place, far = self.turn @ (x, y) + self.origin, self.scale * reach + 2
        low = np.clip(place - far, 0, CROP_SIZE).astype(int)
        high = np.clip(place + far, 0, CROP_SIZE).astype(int)
        box = slice(low[1], high[1]), slice(low[0], high[0])
        return self.x[box], self.y[box], self.picture[box], self.light[box]

    def _paint(self) -> None:
        self._background()
        self._hair_behind()
        self._head()
        for side, sign in (("left", 1), ("right", -1)):
            self._eye(side)
            self._brow(side, sign)
        self._nose()
        self._mouth()
        self._fringe()
        if self.rng.random() < 0.18:
            self._glasses()

    def _background(self) -> None:
        low, high = self.rng.uniform(20, 225), self.rng.uniform(20, 225)
        tilt = self.rng.uniform(0, 2 * pi)
        self.picture[:] = low + (high - low) * _soft(cos(tilt) * self.x + sin(tilt) * self.y, 1.4)

    def _hair_behind(self) -> None:
        rng, x, y, picture = self.rng, self.x - self.lean, self.y, self.picture
        waves = [rng.uniform(15, 30), rng.uniform(40, 75), rng.uniform(0, 6), rng.uniform(0, 6)]
        bent = x + 0.08 * np.sin(3 * y + waves[2])
        strands = 0.5 * np.sin(waves[0] * bent + waves[2]) + 0.5 * np.sin(waves[1] * bent + waves[3])
        gloss = 0.35 * np.exp(-(((np.hypot(x, y + 0.3) - 0.72) / 0.09) ** 2))
        self.hair_tone = self.hair * (1 + 0.09 * strands + gloss)
        crown = _ellipse(x, y + 0.42, self.width + rng.uniform(0.04, 0.14), rng.uniform(0.80, 0.92), 0.04)
        if not self.bald:
            falls = _soft(self.width + 0.10 - np.abs(x), 0.04) * _soft(self.length - y, 0.06) * _soft(y + 0.5, 0.1)
            _over(picture, self.hair_tone, np.maximum(crown * _soft(self.length + 0.15 - y, 0.1), falls))
        if self.length < 0:
            for sign in (1, -1):  # ears
                ear = _ellipse(x - sign * (self.width + 0.02), y + 0.22, 0.075, 0.17, 0.1)
                _over(
                    picture, self.skin * (0.75 - 0.25 * _blob(x - sign * (self.width + 0.02), y + 0.2, 0.04, 0.08)), ear
                )
        _over(
            picture,
            self.skin * (0.68 - 0.2 * _soft(0.95 - y, 0.15)),
            _soft(0.42 - np.abs(x), 0.03) * _soft(y - 0.5, 0.1),
        )

    def _head(self) -> None:
        rng, x, y = self.rng, self.x - self.lean, self.y
        across = np.abs(x) / (self.width - self.jaw * np.clip(y - 0.05, 0, 1))
        down = np.abs(y + 0.12) / 1.0
        outline = across**2 * np.sqrt(across) + down**2 * np.sqrt(down)  # squarer than an ellipse
        side, strength = rng.uniform(-1, 1), rng.uniform(0.1, 0.4)
        depth = np.sqrt(np.clip(1.15 - outline, 0.03, 1.15))
        self.light = np.clip(0.52 + 0.46 * depth + strength * (side * x - 0.3 * y - 0.05), 0.25, 1.25)
        skin = self.skin * self.light
        lifted = max(self.e["corner"], 0)
        for sign in (1, -1):
            skin *= 1 + (0.06 + 0.8 * lifted) * _blob(x - sign * 0.46, y - 0.05, 0.17, 0.13)
            skin *= 1 - 0.10 * _blob(x - sign * 0.6, y - 0.35, 0.16, 0.3)
        if rng.random() < 0.2:
            edge = 0.24 + 0.12 * np.exp(-(((np.abs(x) - 0.34) / 0.14) ** 2)) - 0.7 * np.clip(np.abs(x) - 0.5, 0, 1)
            beard = _soft(y - edge, 0.06) * (1 - 0.4 * _blob(x, y - 0.54, 0.09, 0.05))
            _over(skin, self.hair_tone, rng.uniform(0.2, 0.85) * beard)
        _over(self.picture, skin, _soft(1 - outline, 0.06))

    def _eye(self, side: str) -> None:
        e = self.e
        (ex, ey) = self.at[f"{side}_eye_center"]
        (ix, iy), (ox, oy) = self.at[f"{side}_eye_inner_corner"], self.at[f"{side}_eye_outer_corner"]
        x, y, picture, light = self._near(ex, ey, 0.4)
        u = (x - (ix + ox) / 2) / (abs(ox - ix) / 2)
        line = iy + (oy - iy) * (x - ix) / (ox - ix)
        arch = np.clip(1 - u**2, 0, 1)
        top, bottom = line - e["lid"] * arch**0.7, line + e["lid"] * (0.75 - e["lower_lid"]) * arch**0.8
        picture *= 1 - 0.26 * _blob(x - ex, y - ey + 0.03, 0.24, 0.13)  # the socket
        white = np.minimum((self.skin * 0.35 + 130) * (0.2 + 0.8 * light), 238)
        distance = np.hypot(x - ex - 0.03 * sin(self.yaw), y - ey)
        eye = white - 60 * np.exp(-(((y - top) / 0.03) ** 2))  # the lid's shadow
        _over(eye, 22 + 0.22 * self.hair, _soft(0.070 - distance, 0.010))
        _over(eye, 10.0, _soft(0.034 - distance, 0.010))
        _over(eye, 240.0, 0.9 * _blob(x - ex - 0.022, y - ey + 0.025, 0.014, 0.014))
        _over(picture, eye, _soft(y - top, 0.010) * _soft(bottom - y, 0.010) * _soft(1 - np.abs(u), 0.03))
        lash = np.exp(-(((y - top) / 0.017) ** 2)) * _soft(1.05 - np.abs(u), 0.06)
        _over(picture, 0.22 * self.skin, 0.85 * lash)
        fold = np.exp(-(((y - top + 0.045) / 0.015) ** 2)) * _soft(0.9 - np.abs(u), 0.1)
        under = np.exp(-(((y - bottom) / 0.015) ** 2)) * _soft(1 - np.abs(u), 0.1)
        picture *= (1 - 0.2 * fold) * (1 - (0.2 + 0.4 * e["lower_lid"]) * under)

    def _brow(self, side: str, sign: int) -> None:
        (ix, iy), (ox, oy) = self.at[f"{side}_eyebrow_inner_end"], self.at[f"{side}_eyebrow_outer_end"]
        x, y, picture, _ = self._near((ix + ox) / 2, (iy + oy) / 2, 0.4)
        t = (x - ix) / (ox - ix)
        within = np.clip(t, 0, 1)
        line = iy + (oy - iy) * t - 0.2 * within * (1 - within)
        thick = 0.036 - 0.022 * within
        hairs = _soft(thick - np.abs(y - line), 0.014) * _soft(t + 0.01, 0.025) * _soft(1.01 - t, 0.025)
        _over(picture, min(0.8 * self.hair, self.skin * 0.42), 0.85 * hairs)
        crease = max(self.e["brow_pinch"], 0) * 7 * _blob(x - ix + sign * 0.09, y - iy, 0.016, 0.09)
        picture *= 1 - np.clip(crease, 0, 0.4)

    def _nose(self) -> None:
        nx, ny = self.at["nose_tip"]
        wrinkle = self.e["wrinkle"]
        x, y, picture, _ = self._near(nx * 0.6, ny - 0.12, 0.5)
        bridge = nx * np.clip((y + 0.4) / (ny + 0.4), 0, 1)
        long = _soft(y + 0.30, 0.15) * _soft(ny - y, 0.08)
        shaded = 1 if self.yaw < 0 else -1
        picture *= 1 - 0.16 * _ridge(x - bridge - shaded * 0.09, 0.05) * long
        picture *= 1 + 0.07 * _ridge(x - bridge, 0.045) * long
        picture *= 1 + 0.14 * _blob(x - nx, y - ny + 0.01, 0.065, 0.05)
        base = nx * 0.85
        picture *= 1 - 0.28 * _blob(x - base, y - ny - 0.10, 0.11, 0.03)
        for sign in (1, -1):
            _over(picture, 0.2 * self.skin, 0.75 * _blob(x - base - sign * 0.062, y - ny - 0.068, 0.034, 0.018))
            wing = np.exp(-(((np.hypot(x - base - sign * 0.09, (y - ny - 0.03) * 0.9) - 0.062) / 0.018) ** 2))
            picture *= 1 - 0.28 * wing * _soft(sign * (x - base) - 0.10, 0.04)
            crease = np.abs(np.sin((y + 0.25) * 50)) * _blob(x - nx * 0.4 - sign * 0.06, y + 0.20, 0.06, 0.09)
            picture *= 1 - 0.38 * wrinkle * crease

    def _mouth(self) -> None:
        e = self.e
        (lx, ly), (rx, ry) = self.at["mouth_left_corner"], self.at["mouth_right_corner"]
        (cx, top), (_, bottom) = self.at["mouth_center_top_lip"], self.at["mouth_center_bottom_lip"]
        nx, ny = self.at["nose_tip"]
        x, y, picture, light = self._near(cx, (top + bottom) / 2, 0.65)
        for sign, (px, py) in ((1, (lx, ly)), (-1, (rx, ry))):
            wing = nx * 0.85 + sign * 0.17
            t = (y - ny) / (py + 0.06 - ny)  # along the fold from the nose's wing around the corner
            fold = x - wing - (px + sign * 0.10 - wing) * t - sign * 0.16 * t * (1 - t)
            deep = 0.04 + 0.16 * e["wrinkle"] + 0.9 * max(e["corner"], 0)
            picture *= 1 - deep * _blob(fold, t - 0.5, 0.045, 0.42)
            picture *= 1 - 0.28 * _blob(x - px, y - py, 0.04, 0.035)
        u = np.abs(np.where(x > cx, (x - cx) / max(lx - cx, 1e-3), (x - cx) / min(rx - cx, -1e-3)))
        corner = np.where(x > cx, np.float32(ly), np.float32(ry))
        round_, flat = 1 - np.sqrt(np.clip(1 - u**2, 0, 1)), np.clip(u, 0, 1) ** 2
        curve = flat + (round_ - flat) * min(e["opening"] / 0.2, 1)
        bow = 0.013 * (1 - np.exp(-((u / 0.22) ** 2))) * (1 - flat)
        upper, lower = top + (corner - top) * curve - bow, bottom + (corner - bottom) * curve
        within = _soft(1 - u, 0.03)
        lips = self.skin * light * (0.56 + 0.12 * _blob(x - cx, y - bottom + 0.03, 0.14, 0.025))
        _over(picture, lips, 0.92 * _soft(y - upper, 0.014) * _soft(lower - y, 0.014) * within)
        inner = np.clip(curve * 1.15, 0, 1)
        roof = top + 0.05 * self.lip
        floor = max(bottom - 0.06 * self.lip, roof)
        roof_line, floor_line = roof + (corner - roof) * inner, floor + (corner - floor) * inner
        hollow = _soft(y - roof_line, 0.012) * _soft(floor_line - y, 0.012) * within
        teeth = e["teeth"] * _soft(roof_line + min(0.085, 0.8 * e["opening"]) - y, 0.014)
        inside = np.full_like(x, 26.0)
        _over(inside, 215 * np.minimum(light, 1.05), teeth * _soft(0.95 - u, 0.1))
        open_ = min(e["opening"] / 0.02, 1)
        _over(picture, inside, open_ * hollow)
        seam = _ridge(y - (roof_line + floor_line) / 2, 0.014) * within
        _over(picture, 0.2 * self.skin, 0.85 * (1 - open_) * seam)
        picture *= 1 - 0.18 * _blob(x - cx, y - bottom - 0.05, 0.15, 0.03)

    def _fringe(self) -> None:
        rng = self.rng
        if self.bald or rng.random() < 0.1:
            return
        x, y = self.x - self.lean, self.y
        part = rng.uniform(-0.5, 0.5)
        line = rng.uniform(-1.0, -0.78) + rng.uniform(0.0, 0.35) * (x - part) ** 2
        tips = rng.uniform(25, 50)
        line += 0.02 * np.cos(tips * x) * np.cos(0.37 * tips * x + 1)
        brows = min(py for name, (_, py) in self.at.items() if "eyebrow" in name) - 0.07
        line = np.minimum(line, brows + 3 * np.clip(np.abs(x) - 0.68, 0, 1))  # brows stay visible
        cap = _ellipse(x, y + 0.42, self.width + 0.05, 0.84, 0.04)
        shadow = _soft(line + 0.07 - y, 0.07) * cap
        self.picture *= 1 - 0.2 * shadow
        _over(self.picture, self.hair_tone, _soft(line - y, 0.035) * cap)

    def _glasses(self) -> None:
        frame, reach, bend = self.rng.uniform(15, 60), self.rng.uniform(0.20, 0.25), self.rng.uniform(0.7, 0.9)
        (lx, ly), (rx, ry) = self.at["left_eye_center"], self.at["right_eye_center"]
        x, y, picture, _ = self._near((lx + rx) / 2, (ly + ry) / 2, 0.9)
        narrow = reach * cos(self.yaw)
        for ex, ey in ((lx, ly), (rx, ry)):
            dx, dy = np.abs(x - ex) / narrow, np.abs(y - ey - 0.02) / (reach * bend)
            lens = dx * dx * dx + dy * dy * dy
            _over(picture, 250.0, 0.07 * _soft(1 - lens, 0.1))
            _over(picture, frame, 0.9 * _ridge(lens - 1, 0.2))
        rim = _soft(0.013 - np.abs(y - (ly + ry) / 2 + 0.02), 0.012)
        between = _soft(lx - narrow - x, 0.01) * _soft(x - rx - narrow, 0.01)
        arms = _soft(np.maximum(x - lx, rx - x) - narrow, 0.01) * _soft(self.width - 0.03 - np.abs(x - self.lean), 0.02)
        _over(picture, frame, 0.9 * rim * np.maximum(between, arms))

    def _photograph(self) -> NDArray[np.uint8]:
        rng = self.rng
        gain, offset = rng.uniform(0.75, 1.25), rng.uniform(-15, 15)
        picture = (self.picture - 128) * gain + 128 + offset
        image = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
        if rng.random() < 0.5:
            image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.9)))
        noise = 5 * rng.random() ** 2 * rng.standard_normal((CROP_SIZE, CROP_SIZE), np.float32)
        return np.rint((np.asarray(image) + noise).clip(0, 255)).astype(np.uint8)


def _over(below: Field, above: Field | float, share: Field) -> None:
    """Blends `above` into `below`, in place."""
    below += (above - below) * share


def _soft(distance: Field, edge: float) -> Field:
    """1 where the distance is positive, 0 where negative, rising over `edge` on either side."""
    return np.clip(distance * (0.5 / edge) + 0.5, 0, 1)


def _ridge(distance: Field, wide: float) -> Field:
    return np.exp(-((distance / wide) ** 2))


def _blob(dx: Field, dy: Field, wide: float, high: float) -> Field:
    return np.exp(-((dx / wide) ** 2) - (dy / high) ** 2)


def _ellipse(dx: Field, dy: Field, wide: float, high: float, edge: float) -> Field:
    return _soft(1 - np.hypot(dx / wide, dy / high), edge)
