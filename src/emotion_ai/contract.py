"""What all parts share: the crop, the points, the classes, the servables and their signatures.

Coordinates are pixels of the 96x96 crop, x right, y down, pixel centres at integers. *Left* is the subject's left.
"""

from typing import Literal

CROP_SIZE = 96

KEYPOINTS = (
    "left_eye_center",
    "right_eye_center",
    "left_eye_inner_corner",
    "left_eye_outer_corner",
    "right_eye_inner_corner",
    "right_eye_outer_corner",
    "left_eyebrow_inner_end",
    "left_eyebrow_outer_end",
    "right_eyebrow_inner_end",
    "right_eyebrow_outer_end",
    "nose_tip",
    "mouth_left_corner",
    "mouth_right_corner",
    "mouth_center_top_lip",
    "mouth_center_bottom_lip",
)

EMOTIONS = ("Angry", "Disgust", "Sad", "Happy", "Surprise")


def _mirror(name: str) -> str:
    swap = {"left": "right", "right": "left"}
    return "_".join(swap.get(word, word) for word in name.split("_"))


FLIP = tuple(KEYPOINTS.index(_mirror(name)) for name in KEYPOINTS)
"""Point i of a mirrored face is point FLIP[i] of the original."""

MEAN_FACE = (
    (65.53, 37.81),
    (29.47, 37.81),
    (58.75, 37.97),
    (72.97, 37.87),
    (36.25, 37.97),
    (22.03, 37.87),
    (55.87, 29.42),
    (79.31, 30.08),
    (39.13, 29.42),
    (15.69, 30.08),
    (47.50, 62.72),
    (62.69, 76.08),
    (32.31, 76.08),
    (47.50, 72.92),
    (47.50, 78.97),
)
"""Where the points lie on average: the mean of Kaggle's 7,049 labelled faces, made symmetric."""

Task = Literal["keypoints", "emotion"]
TASKS: tuple[Task, ...] = ("keypoints", "emotion")

Servable = Literal["keypoints", "emotion", "face"]
SERVABLES: tuple[Servable, ...] = ("keypoints", "emotion", "face")

OUTPUTS: dict[str, tuple[str, ...]] = {
    "keypoints": ("keypoints",),
    "emotion": ("probabilities",),
    "face": ("keypoints", "probabilities"),
}
"""Names of each servable's outputs, in `serving_default` and `serving_bytes`."""

DEVIATIONS = "deviations"
"""Standard deviations of the keypoints' coordinates, float32 (N, 15, 2), pixels of the crop."""

EXPRESSIONS = "expressions"
"""Probabilities of all K classes that the network knows, float32 (N, K); of the five emotions alone, or of classes that
are others, they are the `probabilities`."""

UNCERTAIN_BELOW = "uncertain_below"
"""The probability that each class needs to be the verdict, float32 (N, K), by the version's own rule: if the most
probable class has a lower one, the face is uncertain."""

CLASSES = "classes"
"""Names of the K classes in the order of `expressions`, UTF-8 strings (N, K), the same for every face."""

IMAGES_SIGNATURE, BYTES_SIGNATURE, UNCERTAINTY_SIGNATURE = "serving_default", "serving_bytes", "serving_uncertainty"
FULL_SIGNATURE, CLASSES_SIGNATURE = "serving_full", "serving_classes"
IMAGES_INPUT, BYTES_INPUT, REQUEST_INPUT = "images", "image_bytes", "request"
INPUTS = {
    IMAGES_SIGNATURE: IMAGES_INPUT,
    BYTES_SIGNATURE: BYTES_INPUT,
    UNCERTAINTY_SIGNATURE: BYTES_INPUT,
    FULL_SIGNATURE: BYTES_INPUT,
    CLASSES_SIGNATURE: REQUEST_INPUT,
}
"""Signatures, and the input that each takes: crops, files, or any int32 (N,) to ask for the classes."""

MAX_FACES = 128
"""Faces in one request; served graphs reject more."""

MAX_CROP_PIXELS = 2048 * 2048
"""Pixels of an image file in a request, width times height; served graphs reject larger ones before decoding them."""

MAX_CROP_SIDE = 65_535
"""Pixels of the longer side of such a file, as in JPEG; resizing a longer one takes far more memory."""


def outputs(servable: str, signature: str) -> tuple[str, ...]:
    """Names of a servable's outputs in a signature; empty if it has no such signature."""
    names = OUTPUTS[servable]
    if signature == CLASSES_SIGNATURE:
        return (CLASSES,) if "probabilities" in names else ()
    points = (DEVIATIONS,) if "keypoints" in names else ()
    if signature == UNCERTAINTY_SIGNATURE:
        return (*names, *points) if points else ()
    if signature == FULL_SIGNATURE:
        return (*names, *points, *((EXPRESSIONS, UNCERTAIN_BELOW, CLASSES) if "probabilities" in names else ()))
    return names
