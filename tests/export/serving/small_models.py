"""Small models for the embedded server, and requests to it without a socket."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any, Protocol

import httpx
import numpy as np

from emotion_ai_export.convert.frameworks import tf, tf_function
from emotion_ai_export.serving.embedded.app import create_app
from emotion_ai_export.serving.embedded.limits import Limits
from emotion_ai_export.serving.embedded.store import ModelStore


class Ask(Protocol):
    def __call__(self, path: str, body: Any = None, **more: Any) -> httpx.Response: ...


class Face(tf.Module):  # type: ignore[misc]
    """The mean of a picture times the version, from pixels and from bytes, as in the real servables."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = tf.Variable(factor)

    @tf_function(tf.TensorSpec([None, 96, 96, 1], tf.float32, "images"))
    def pixels(self, images: Any) -> Any:
        return {"mean": self.factor * tf.reduce_mean(images, [1, 2, 3])}

    @tf_function(tf.TensorSpec([None], tf.string, "image_bytes"))
    def encoded(self, image_bytes: Any) -> Any:
        def mean(content: Any) -> Any:
            return tf.reduce_mean(tf.cast(tf.io.decode_image(content, 1), tf.float32))

        return {"mean": self.factor * tf.map_fn(mean, image_bytes, tf.float32)}


class Sleepy(tf.Module):  # type: ignore[misc]
    """Takes three seconds."""

    @tf_function(tf.TensorSpec([None], tf.float32, "x"))
    def call(self, x: Any) -> Any:
        end = tf.timestamp() + 3.0
        turns = tf.while_loop(lambda _: tf.timestamp() < end, lambda i: (i + 1,), [tf.constant(0.0)])[0]
        return {"y": x + tf.minimum(turns, 0.0)}


def build(folder: Path) -> None:
    """Three versions of `Face`, and `Sleepy`."""
    for version in (1, 2, 3):
        model = Face(float(version))
        signatures = {"serving_default": model.pixels, "serving_bytes": model.encoded}
        tf.saved_model.save(model, str(folder / str(version)), signatures=signatures)
    sleepy = Sleepy()
    tf.saved_model.save(sleepy, str(folder / "sleepy"), signatures={"serving_default": sleepy.call})


def put(built: Path, base: Path, version: int, model: str = "face") -> None:
    (base / model).mkdir(parents=True, exist_ok=True)
    staged = base / f".staging-{version}"
    shutil.copytree(built / str(version), staged)
    staged.rename(base / model / str(version))


def asker(store: ModelStore, limits: Limits | None = None) -> Ask:
    app = create_app(store, limits)

    def ask(path: str, body: Any = None, **more: Any) -> httpx.Response:
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()

        async def request() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://embedded") as client:
                return await client.request("GET" if body is None else "POST", path, content=content, **more)

        return asyncio.run(request())

    return ask


def states(ask: Ask, model: str = "face") -> dict[str, str]:
    return {v["version"]: v["state"] for v in ask(f"/v1/models/{model}").json()["model_version_status"]}


ONES = {"instances": np.ones((1, 96, 96, 1)).tolist()}


def served(ask: Ask, choice: str = "") -> Any:
    """The version that serves a request: the model multiplies ones by its number."""
    answer = ask(f"/v1/models/face{choice}:predict", ONES)
    return answer.json()["predictions"] if answer.status_code == 200 else answer.status_code
