"""Inputs as requests that a server accepts: of limited pictures, faces and bytes."""

import io
import warnings
from collections.abc import Iterator

from PIL import Image

from emotion_ai.client.transport import Inputs
from emotion_ai.contract import CROP_SIZE, MAX_CROP_PIXELS, MAX_CROP_SIDE, MAX_FACES
from emotion_ai.errors import ImageError

MAX_BYTES = 16 * 2**20
"""Bytes of the image files in one request; a single larger file is sent alone."""

_PIXELS = MAX_BYTES // (20 * CROP_SIZE**2)  # crops in a request of pixels; a number takes up to 20 characters in JSON


def split(inputs: Inputs) -> Iterator[Inputs]:
    """The inputs of one request after another; at least one, for no inputs an empty one.

    Raises:
        ImageError: a file has more pixels than a server accepts.
    """
    if not isinstance(inputs, list):
        for start in range(0, max(len(inputs), 1), min(_PIXELS, MAX_FACES)):
            yield inputs[start : start + min(_PIXELS, MAX_FACES)]
        return
    for position, file in enumerate(inputs):
        _check_pixels(position, file)
    request: list[bytes] = []
    size = 0
    for file in inputs:
        if len(request) == MAX_FACES or (request and size + len(file) > MAX_BYTES):
            yield request
            request, size = [], 0
        request.append(file)
        size += len(file)
    yield request


def _check_pixels(position: int, file: bytes) -> None:
    """What cannot be read is left to the server, whose error is the better one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures; our own limit is lower
            with Image.open(io.BytesIO(file), formats=("PNG", "JPEG")) as image:
                width, height = image.size
    except Image.DecompressionBombError as error:
        raise ImageError(f"file {position}: {error}; {_ADVICE}") from error
    except Exception:
        return
    if width * height > MAX_CROP_PIXELS or max(width, height) > MAX_CROP_SIDE:
        raise ImageError(f"file {position}: has {width}x{height} pixels; {_ADVICE}")


_ADVICE = f"a crop may have at most {MAX_CROP_PIXELS // 2**20} megapixels, so shrink it"
