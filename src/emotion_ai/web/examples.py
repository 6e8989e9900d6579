"""Example pictures: public-domain portraits, a synthetic face, and a group composed of the portraits."""

import io
from functools import cache

from PIL import Image, ImageOps

from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.vision.photo import PORTRAITS

_HEIGHT, _GAP = 620, 12  # pixels of the group


@cache
def examples() -> dict[str, bytes]:
    """Encoded pictures by name."""
    collins, hopper = (path.read_bytes() for path in PORTRAITS)
    face = Image.fromarray(synthetic_faces(5, 3).images[1]).resize((384, 384), Image.Resampling.BICUBIC)
    synthetic = ImageOps.expand(face, 40, 128)
    return {
        "Eileen Collins": collins,
        "Grace Hopper": hopper,
        "Synthetic face": _encoded(synthetic),
        "A group": _encoded(_group(collins, hopper)),
    }


def _group(collins: bytes, hopper: bytes) -> Image.Image:
    """Four portraits side by side, with faces of different sizes."""
    one, two = (Image.open(io.BytesIO(content)).convert("RGB") for content in (collins, hopper))
    parts = [
        two.crop((60, 20, 480, 600)),
        one.crop((90, 0, 370, 400)),
        ImageOps.mirror(two.crop((110, 40, 420, 440))),
        ImageOps.mirror(one.crop((60, 0, 400, 512))),
    ]
    parts = [part.resize((round(part.width * _HEIGHT / part.height), _HEIGHT)) for part in parts]
    sheet = Image.new("RGB", (sum(part.width + _GAP for part in parts) - _GAP, _HEIGHT), "white")
    left = 0
    for part in parts:
        sheet.paste(part, (left, 0))
        left += part.width + _GAP
    return sheet


def _encoded(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=92)
    return file.getvalue()


def thumbnail(content: bytes, side: int = 96) -> bytes:
    """A square JPEG of the middle of a picture."""
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    return _encoded(ImageOps.fit(picture, (side, side), centering=(0.5, 0.3)))
