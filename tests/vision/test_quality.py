"""Quality of a crop: the formulas, what changes them and what does not, and the flags."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from emotion_ai.contract import CROP_SIZE
from emotion_ai.errors import ImageError
from emotion_ai.vision.crops import crop, resize_to_crop
from emotion_ai.vision.detector import find_faces
from emotion_ai.vision.photo import PORTRAITS, load_photo
from emotion_ai.vision.quality import BLURRED, DARK, SMALL, FaceQuality, measure_quality


@pytest.fixture(scope="module", params=[0, 1])
def face(request: pytest.FixtureRequest) -> NDArray[np.uint8]:
    from emotion_ai.vision.crops import box_from_detection

    photo = load_photo(PORTRAITS[request.param])
    return crop(photo.gray, box_from_detection(find_faces(photo.rgb)[0].points))


def blurred(image: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    """Blurred by so many pixels of the 96x96 crop."""
    radius = sigma * image.shape[0] / CROP_SIZE
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


@settings(max_examples=20)
@given(st.integers(2, 120), st.integers(2, 120), st.integers(0, 2**32 - 1))
def test_the_formulas(height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    gray, found = resize_to_crop(image).astype(np.float64), measure_quality(image)
    kernel = {(0, 0): -4, (0, 1): 1, (0, -1): 1, (1, 0): 1, (-1, 0): 1}
    inner = range(1, CROP_SIZE - 1)
    laplacian = [sum(k * gray[y + dy, x + dx] for (dy, dx), k in kernel.items()) for y in inner for x in inner]
    assert found.size == min(height, width)
    assert found.brightness == pytest.approx(gray.sum() / gray.size)
    assert found.contrast == pytest.approx(np.sqrt(((gray - found.brightness) ** 2).mean()))
    assert found.sharpness == pytest.approx(np.std(laplacian) / found.contrast)


def test_the_portraits_have_no_flag_and_faults_have_theirs(face: NDArray[np.uint8]) -> None:
    assert measure_quality(face).flags == ()
    assert measure_quality(blurred(face, 1)).flags == ()
    assert measure_quality(blurred(face, 4)).flags == ("blurred",)
    assert measure_quality((face * (0.8 * DARK / face.mean())).astype(np.uint8)).flags == ("dark",)
    small = np.asarray(Image.fromarray(face).resize((SMALL - 1, SMALL - 1), Image.Resampling.LANCZOS))
    assert "small" in measure_quality(small).flags
    assert measure_quality(face, SMALL - 0.5).flags == ("small",), "the side in the photo counts"


def test_light_changes_brightness_and_contrast_but_hardly_sharpness(face: NDArray[np.uint8]) -> None:
    one, other = measure_quality(face), measure_quality((face // 2 + 40).astype(np.uint8))
    assert other.contrast == pytest.approx(one.contrast / 2, rel=0.01)
    assert other.brightness == pytest.approx(one.brightness / 2 + 40, abs=1)
    assert other.sharpness == pytest.approx(one.sharpness, rel=0.05)


def test_blur_lowers_sharpness_whatever_the_size_of_the_photo(face: NDArray[np.uint8]) -> None:
    values = [measure_quality(blurred(face, sigma)).sharpness for sigma in (0, 1, 2, 3, 4)]
    assert values == sorted(values, reverse=True)
    large = np.asarray(Image.fromarray(face).resize((600, 600), Image.Resampling.BICUBIC))
    assert measure_quality(blurred(large, 2)).sharpness == pytest.approx(values[2], rel=0.1)


@pytest.mark.parametrize(
    ("quality", "flags"),
    [
        (FaceQuality(SMALL, BLURRED, DARK, 1), ()),
        (FaceQuality(SMALL - 1e-6, BLURRED - 1e-6, DARK - 1e-6, 1), ("small", "blurred", "dark")),
    ],
)
def test_thresholds_are_exclusive(quality: FaceQuality, flags: tuple[str, ...]) -> None:
    assert quality.flags == flags


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_crop_of_one_gray_level_is_blurred(level: int) -> None:
    found = measure_quality(np.full((50, 40), level, np.uint8))
    assert (found.size, found.sharpness, found.brightness, found.contrast) == (40, 0, level, 0)
    assert "blurred" in found.flags


def test_other_arrays_are_refused() -> None:
    for wrong in (np.zeros((96, 96, 3), np.uint8), np.zeros((96, 96), np.float32), np.zeros((0, 5), np.uint8)):
        with pytest.raises(ImageError, match="must be gray"):
            measure_quality(wrong)  # type: ignore[arg-type]


def test_it_needs_no_extra() -> None:
    code = "import sys, emotion_ai.vision.quality; print([m for m in ('torch', 'scipy', 'cv2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
