"""Builds the small models of the recorded requests."""

from pathlib import Path
from typing import Any

from emotion_ai_export.convert.frameworks import tf, tf_function
from emotion_ai_export.registry.model_config import ModelConfig, render

VERSIONS = {"m": (1, 2)}
LABELS = {"m": {"stable": 1, "canary": 2}}


def build(base: Path) -> None:
    """Writes nine models and models.config below an empty folder."""
    for version, factor in ((1, 2.0), (2, 3.0)):
        save(base / "m" / str(version), Scaling(factor))
    save(base / "n" / "1", Scaling(10.0))
    for name, module in (
        ("multi", Several()),
        ("scalar", Scalar()),
        ("err", Asserting()),
        ("cr", Examples()),
        ("mat", Product()),
        ("types", Types()),
        ("bytes", Bytes()),
    ):
        save(base / name / "1", module)
    _set_methods(base / "cr" / "1" / "saved_model.pb")
    names = sorted(path.name for path in base.iterdir())
    configs = [ModelConfig(n, str(base / n), VERSIONS.get(n, ()), LABELS.get(n, {})) for n in names]
    (base / "models.config").write_text(render(configs))


def save(folder: Path, module: Any) -> None:
    tf.saved_model.save(module, str(folder), signatures=module.signatures())


def _takes(*shape: Any, dtype: Any = tf.float32, name: str = "x") -> Any:
    return tf.TensorSpec(list(shape), dtype, name)


class Scaling(tf.Module):  # type: ignore[misc]
    """y = factor * x; the signature `other` adds the factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = tf.Variable(factor)

    @tf_function(_takes(None, 2))
    def f(self, x: Any) -> Any:
        return {"y": x * self.factor}

    @tf_function(_takes(None, 2))
    def g(self, x: Any) -> Any:
        return {"z": x + self.factor, "sum": tf.reduce_sum(x, 1)}

    def signatures(self) -> dict[str, Any]:
        return {"serving_default": self.f, "other": self.g}


class _OneSignature(tf.Module):  # type: ignore[misc]
    def signatures(self) -> dict[str, Any]:
        return {"serving_default": self.f}


class Several(_OneSignature):
    @tf_function(
        _takes(None, 3, name="a"),
        _takes(None, dtype=tf.string, name="s"),
        _takes(None, dtype=tf.int64, name="i"),
    )
    def f(self, a: Any, s: Any, i: Any) -> Any:
        return {"a2": a * 2.0, "s_bytes": s + tf.constant("!"), "i1": i + 1, "b": i > 0, "str": tf.strings.as_string(i)}


class Scalar(_OneSignature):
    @tf_function(_takes())
    def f(self, x: Any) -> Any:
        return {"y": x * 2.0}


class Asserting(_OneSignature):
    @tf_function(_takes(None, dtype=tf.int32))
    def f(self, x: Any) -> Any:
        with tf.control_dependencies([tf.debugging.assert_positive(x, message="must be positive")]):
            return {"y": 100 // x}


class Examples(tf.Module):  # type: ignore[misc]
    """Signatures of the kinds classify and regress, which take tf.Example."""

    @tf_function(_takes(None, dtype=tf.string, name="inputs"))
    def c(self, examples: Any) -> Any:
        p = tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([1], tf.float32)})["x"]
        classes = tf.tile(tf.constant([["p", "q"]]), [tf.shape(p)[0], 1])
        return {"scores": tf.concat([p, 1 - p], 1), "classes": classes}

    @tf_function(_takes(None, dtype=tf.string, name="inputs"))
    def r(self, examples: Any) -> Any:
        return {"outputs": tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([1], tf.float32)})["x"] * 2.0}

    def signatures(self) -> dict[str, Any]:
        return {"classify": self.c, "serving_default": self.r}


class Product(_OneSignature):
    def __init__(self) -> None:
        super().__init__()
        self.weights = tf.Variable([[1.0], [10.0]])

    @tf_function(_takes(None, 2))
    def f(self, x: Any) -> Any:
        return {"y": tf.matmul(x, self.weights)}


class Types(_OneSignature):
    @tf_function(_takes(None, 2, 2, dtype=tf.uint8, name="img"))
    def f(self, img: Any) -> Any:
        floats = tf.cast(img, tf.float32)
        return {"y": floats / 255.0, "d": tf.cast(img, tf.float64) / 3.0, "nan": tf.math.log(floats - 1.0)}


class Bytes(_OneSignature):
    @tf_function(_takes(None, dtype=tf.string, name="s_bytes"))
    def f(self, s_bytes: Any) -> Any:
        return {"out_bytes": s_bytes, "n": tf.strings.length(s_bytes)}


def _set_methods(file: Path) -> None:
    """Sets the method names: TensorFlow 2 writes predict for every signature."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    model = SavedModel.FromString(file.read_bytes())
    signatures = model.meta_graphs[0].signature_def
    signatures["classify"].method_name = "tensorflow/serving/classify"
    signatures["serving_default"].method_name = "tensorflow/serving/regress"
    file.write_bytes(model.SerializeToString())
