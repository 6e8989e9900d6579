"""A module's ONNX model as a SavedModel with its signatures."""

import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from emotion_ai.contract import BYTES_INPUT, BYTES_SIGNATURE, IMAGES_SIGNATURE
from emotion_ai_export.convert.frameworks import tf, tf_function
from emotion_ai_export.convert.interface import ImageFiles, Interface
from emotion_ai_export.convert.onnx_graph.translator import Translator
from emotion_ai_export.convert.onnx_graph.values import CHANNELS_LAST, plain
from emotion_ai_export.convert.saved_model import decode_pictures


def save_module(translator: Translator, interface: Interface, folder: Path) -> None:
    """Writes a SavedModel to a folder that must not exist.

    Raises:
        ExportError: names the first layer that cannot be translated.
    """
    specs = {
        given.name: tf.TensorSpec(given.shape(interface.layout), interface.dtype, given.name)
        for given in interface.inputs
    }

    # one inner function, traced once, so all signatures share one copy of the weights
    @tf_function({name: tf.TensorSpec(spec.shape, tf.float32, name) for name, spec in specs.items()})
    def network(images: Any) -> dict[str, Any]:
        # servers do not check shapes, and a convolution on another rank crashes the whole process
        checked = {name: tf.ensure_shape(tensor, specs[name].shape) for name, tensor in images.items()}
        return translated(translator, interface, checked)

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def from_images(**images: Any) -> dict[str, Any]:
        return network({name: tf.cast(tensor, tf.float32) for name, tensor in images.items()})

    signatures = {IMAGES_SIGNATURE: from_images.get_concrete_function(**specs)}
    if interface.files is not None:
        files, (given,) = interface.files, interface.inputs

        @tf_function(tf.TensorSpec([None], tf.string, BYTES_INPUT))
        def from_files(image_bytes: Any) -> dict[str, Any]:
            pictures = decode_pictures(image_bytes, given.height, given.width, given.channels)
            images = normalised(pictures, files)
            images = tf.transpose(images, [0, 3, 1, 2]) if interface.layout == "NCHW" else images
            return network({given.name: images})

        signatures[BYTES_SIGNATURE] = from_files.get_concrete_function()
    module = tf.Module()
    module.functions = signatures
    tf.saved_model.save(module, str(folder), signatures)
    del module, signatures
    gc.collect()  # graphs hold their weights, and refer to themselves


def litert_function(translator: Translator, interface: Interface) -> Any:
    """The module as a concrete function of float32 images, in the interface's layout."""
    specs = {
        given.name: tf.TensorSpec(given.shape(interface.layout), tf.float32, given.name) for given in interface.inputs
    }

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def network(**images: Any) -> dict[str, Any]:
        return translated(translator, interface, images, for_litert=True)

    return network.get_concrete_function(**specs)


def normalised(pixels: Any, files: ImageFiles) -> Any:
    """Pixels 0-255, channels last, as the network takes them."""
    mean, std = np.array(files.mean), np.array(files.std)
    # not (pixels / 255 - mean) / std: TensorFlow rewrites divisions, and rounds otherwise than NumPy then
    return pixels * (1 / (255 * std)).astype(np.float32) - (mean / std).astype(np.float32)


def translated(
    translator: Translator, interface: Interface, images: Mapping[str, Any], for_litert: bool = False
) -> dict[str, Any]:
    """The outputs by name, images among them in the interface's layout."""

    def order(rank: int) -> tuple[int, ...]:
        return CHANNELS_LAST if rank == 4 and interface.layout == "NHWC" else plain(rank)

    values = translator(images, {name: order(4) for name in images}, for_litert)
    return translator.outputs_in(values, {name: order(len(translator.shape(name))) for name in interface.outputs})
