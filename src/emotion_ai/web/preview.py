"""An upload as the browser shows it next to its result."""

import io

from PIL import Image

from emotion_ai.errors import ImageError
from emotion_ai.web.session import preview as decoded

_SHOWN_BY_BROWSERS = {
    b"\x89PNG": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
    b"RIFF": "image/webp",
}


def preview(content: bytes) -> tuple[bytes, str]:
    """Content and media type to show: the upload itself, or a JPEG of formats such as HEIC that browsers do not show.

    Content that is no picture is never served as a page or a script.
    """
    for signature, kind in _SHOWN_BY_BROWSERS.items():
        if content.startswith(signature):
            return content, kind
    try:
        rgb = decoded(content)
    except ImageError:
        return content, "application/octet-stream"
    Image.fromarray(rgb).save(file := io.BytesIO(), "JPEG")
    return file.getvalue(), "image/jpeg"
