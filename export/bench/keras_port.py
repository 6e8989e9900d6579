"""Our network written natively in Keras, with the same weights: the reference for the converted graph's speed."""

from typing import Any

import torch
from torch import nn

from emotion_ai.contract import CROP_SIZE, KEYPOINTS
from emotion_ai.models import FaceNetwork
from emotion_ai.models.encoder import ResidualBlock, ResidualEncoder, SqueezeExcite
from emotion_ai.models.network import EmotionHead, HeatmapHead, RegressionHead
from emotion_ai_export.convert.frameworks import tf

_HALF = CROP_SIZE / 2


def to_keras(network: FaceNetwork) -> Any:
    """A Keras model from images float32 (N, 96, 96, 1), 0-255, to the network's output.

    Raises:
        TypeError: the encoder is not a `ResidualEncoder`.
    """
    if not isinstance(network.encoder, ResidualEncoder):
        raise TypeError(f"{type(network.encoder).__name__} cannot be ported to Keras; use a ResidualEncoder")
    images = tf.keras.Input((CROP_SIZE, CROP_SIZE, 1))
    x = (images - network.mean) / network.std
    for layer in network.encoder.stem:
        x = _layer(layer, x)
    for block in network.encoder.blocks:
        assert isinstance(block, ResidualBlock)
        x = _block(block, x)
    head = network.head
    if isinstance(head, RegressionHead):
        output = tf.keras.layers.Reshape((len(KEYPOINTS), 2))(_layer(head.conv, x) * _HALF + _HALF)
    elif isinstance(head, HeatmapHead):
        output = _soft_argmax(head, _layer(head.conv, x))
    else:
        assert isinstance(head, EmotionHead)
        weights = [head.linear.weight.detach().numpy().T, head.linear.bias.detach().numpy()]
        dense = tf.keras.layers.Dense(head.linear.out_features)
        scores = dense(tf.keras.layers.GlobalAveragePooling2D()(x))
        emotions = scores[:, : network.spec.class_set.emotions] / network.spec.emotion_temperature
        output = tf.keras.layers.Softmax()(emotions)
        dense.set_weights(weights)
    return tf.keras.Model(images, output)


def _soft_argmax(head: HeatmapHead, logits: Any) -> Any:
    weights = tf.keras.ops.exp(logits - tf.keras.ops.max(logits, (1, 2), keepdims=True))
    total = tf.keras.ops.sum(weights, (1, 2))
    grids = (head.get_buffer(name).permute(0, 2, 3, 1).numpy() for name in ("across", "down"))
    return tf.keras.ops.stack([tf.keras.ops.sum(weights * grid, (1, 2)) / total for grid in grids], -1)


def _block(block: ResidualBlock, x: Any) -> Any:
    shortcut = x
    for layer in block.downsample if isinstance(block.downsample, nn.Sequential) else ():
        shortcut = _layer(layer, shortcut)
    for layer in (block.conv1, block.bn1, block.act1, block.conv2, block.bn2):
        x = _layer(layer, x)
    return tf.keras.layers.ReLU()(_squeeze_excite(block.se, x) + shortcut)


def _squeeze_excite(gate: SqueezeExcite, x: Any) -> Any:
    pooled = tf.keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
    hidden = tf.keras.layers.ReLU()(_layer(gate.reduce, pooled))
    return x * tf.keras.layers.Activation("sigmoid")(_layer(gate.expand, hidden))


def _layer(layer: nn.Module, x: Any) -> Any:
    if isinstance(layer, nn.Identity):
        return x
    if isinstance(layer, nn.ReLU):
        return tf.keras.layers.ReLU()(x)
    if isinstance(layer, nn.AvgPool2d):
        return tf.keras.layers.AveragePooling2D(layer.kernel_size)(x)
    if isinstance(layer, nn.BatchNorm2d):
        assert layer.running_mean is not None
        assert layer.running_var is not None
        normal = tf.keras.layers.BatchNormalization(epsilon=layer.eps)
        output = normal(x)
        weights = [layer.weight, layer.bias, layer.running_mean, layer.running_var]
        normal.set_weights([w.detach().numpy() for w in weights])
        return output
    assert isinstance(layer, nn.Conv2d)
    return _convolution(layer, x)


def _convolution(layer: nn.Conv2d, x: Any) -> Any:
    assert isinstance(layer.padding, tuple)
    stride, pad = layer.stride[0], layer.padding[0]
    if pad and stride != 1:  # Keras's "same" pads a strided convolution differently from PyTorch
        x = tf.keras.layers.ZeroPadding2D(pad)(x)
    convolution = tf.keras.layers.Conv2D(
        layer.out_channels,
        layer.kernel_size,
        stride,
        "same" if pad and stride == 1 else "valid",
        use_bias=layer.bias is not None,
    )
    output = convolution(x)
    weights = [layer.weight.permute(2, 3, 1, 0), *([] if layer.bias is None else [layer.bias])]
    convolution.set_weights([torch.Tensor.numpy(w.detach()) for w in weights])
    return output
