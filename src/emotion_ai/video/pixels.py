"""The pixels of a frame that PyAV has decoded: RGB, upright, square."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emotion_ai.errors import VideoError
from emotion_ai.extras import load
from emotion_ai.vision.photo import MIN_SIDE

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter

MAX_PIXELS = 36_000_000
"""Pixels of the largest frame that is decoded: 8K has 33 million."""

_MOST_STRETCHED = 4.0  # pixels that are longer are a mistake of the file


def check_size(width: int, height: int, name: str) -> None:
    """Accepts frames of at most `MAX_PIXELS`, and at least 16x16; 0 stands for a size that is not known yet.

    Raises:
        VideoError: they are larger or smaller.
    """
    if 0 < min(width, height) < MIN_SIDE:
        raise VideoError(
            f"{name}: its frames have {width}x{height} pixels; they must have at least {MIN_SIDE}x{MIN_SIDE}"
        )
    if width * height > MAX_PIXELS:
        most = MAX_PIXELS // 1_000_000
        raise VideoError(f"{name}: its frames have {width}x{height} pixels, more than {most} megapixels; scale it down")


class Converter:
    """Makes pixels of a video's frames, one after the other.

    A frame that converts itself starts threads, and only the garbage collector frees a frame whose side data were read.
    So one converter serves all, and each rotation's matrix is read once.
    """

    def __init__(self) -> None:
        self._reformatter: VideoReformatter = load("av.video.reformatter").VideoReformatter()
        self._matrices: dict[int, NDArray[np.int32] | None] = {}

    def upright_rgb(self, frame: "VideoFrame", aspect: float = 1.0) -> NDArray[np.uint8]:
        """The pixels, uint8 (H, W, 3): turned and mirrored as the metadata say, square, laid over white.

        Args:
            frame: as decoded.
            aspect: width of a pixel by its height.

        Raises:
            VideoError: they cannot be converted, or do not fit into memory.
        """
        av = load("av")
        width, format = frame.width, frame.format
        if 1 / _MOST_STRETCHED <= aspect <= _MOST_STRETCHED and width * aspect * frame.height < MAX_PIXELS:
            width = max(round(width * aspect), 1)
        clear = format.has_palette or any(component.is_alpha for component in format.components)
        try:
            shown = self._reformatter.reformat(frame, width, frame.height, "rgba" if clear else "rgb24", threads=1)
            pixels = np.asarray(shown.to_ndarray(), np.uint8)
        except (av.FFmpegError, ValueError, MemoryError) as error:
            raise VideoError(f"a frame in the format {format.name} cannot be converted ({error})") from error
        if (rotation := frame.rotation) not in self._matrices:
            self._matrices[rotation] = _display_matrix(frame)
        return np.ascontiguousarray(_turned(_over_white(pixels) if clear else pixels, self._matrices[rotation]))


def _over_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    alpha = rgba[..., 3:].astype(np.uint16)
    over: NDArray[np.uint8] = ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return over


def _display_matrix(frame: "VideoFrame") -> NDArray[np.int32] | None:
    """How a point (x, y) moves when the frame is shown, (2, 2): right is x * [0, 0] + y * [1, 0]."""
    found: Any = frame.side_data.get(load("av.sidedata.sidedata").Type.DISPLAYMATRIX)
    return None if found is None else np.frombuffer(bytes(found), np.int32)[:9].reshape(3, 3)[:2, :2].copy()


def _turned(pixels: NDArray[np.uint8], matrix: NDArray[np.int32] | None) -> NDArray[np.uint8]:
    """By whole quarters of a turn, the nearest ones."""
    if matrix is None or not matrix.any():
        return pixels
    (right_x, down_x), (right_y, down_y) = matrix.astype(np.int64)
    if abs(right_x) >= abs(right_y):
        return pixels[:: -1 if down_y < 0 else 1, :: -1 if right_x < 0 else 1]
    return pixels.swapaxes(0, 1)[:: -1 if down_x < 0 else 1, :: -1 if right_y < 0 else 1]
