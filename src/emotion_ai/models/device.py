"""Where networks run, and in which precision: the one place that chooses and checks a device."""

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emotion_ai.errors import ConfigError
from emotion_ai.models.network import FaceNetwork

Precision = Literal["fp32", "bf16", "fp16"]


class Tolerance(NamedTuple):
    """How far answers may lie from those of a CPU in fp32: pixels of the 96x96 crop, and probability."""

    pixels: float
    probability: float


GPU_TOLERANCE = Tolerance(5e-4, 2e-5)
"""In fp32, without TF32, which sums in another order. An H200 has 4e-5 pixels and 7e-7; with TF32, 0.014 pixels."""

TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": GPU_TOLERANCE,
    "bf16": Tolerance(0.5, 0.02),
    "fp16": Tolerance(0.05, 0.005),
}
"""Of the bundled networks on any device, by precision; also on black, white and noise."""

_HALF: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
_BATCH = {"cpu": 64, "cuda": 512}
_USABLE = 0.9  # of a GPU's memory, beside what CUDA itself takes
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED")


@dataclass(frozen=True)
class Placement:
    """Where networks run.

    Attributes:
        device: of PyTorch.
        precision: "fp32", or of the encoder "bf16" or "fp16"; the heads stay in fp32.
    """

    device: torch.device
    precision: Precision = "fp32"

    @classmethod
    def of(cls, device: str = "auto", precision: str = "fp32") -> Self:
        """The placement of that name.

        Args:
            device: "cpu", "cuda", "cuda:1", "mps" or another device of PyTorch; "auto" is a GPU if there is one.
            precision: as the attribute.

        Raises:
            ConfigError: the device is not here, or cannot compute in the precision.
        """
        found = find_device(device)
        if precision not in _HALF:
            raise ConfigError(f"`precision` must be fp32, bf16 or fp16, got {precision!r}")
        placement = cls(found, precision)  # type: ignore[arg-type]  # checked
        if precision == "fp32":
            return placement
        try:
            with warnings.catch_warnings(), torch.autocast(found.type, _HALF[precision]):
                warnings.simplefilter("error")  # a dtype that autocast lacks on the device is only a warning
                torch.nn.functional.conv2d(*torch.ones(2, 1, 1, 1, 1, device=found)).item()
        except (RuntimeError, UserWarning) as error:
            raise ConfigError(f"{found}: cannot compute in {precision} ({_line(error)}); use fp32") from error
        return placement

    @classmethod
    def like(cls, network: FaceNetwork) -> Self:
        """The placement of a network."""
        names: dict[torch.dtype | None, Precision] = {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
        return cls(network.device, names[network.half_precision])

    @property
    def name(self) -> str:
        """The device's type and product, for records."""
        kind = self.device.type
        return f"cuda ({torch.cuda.get_device_name(self.device)})" if kind == "cuda" else kind

    def place(self, network: FaceNetwork) -> FaceNetwork:
        """Moves a network, and has its encoder compute in the precision."""
        network.half_precision = _HALF[self.precision]
        network = network.to(self.device)
        return network.to(memory_format=torch.channels_last) if self.device.type == "cuda" else network


def find_device(name: str | torch.device = "auto") -> torch.device:
    """The device of that name; "auto" is a GPU if there is one.

    Raises:
        ConfigError: there is none here.
    """
    name = str(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, number = name.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" and torch.cuda.is_available() else 0
    if kind == "cuda" and not count:
        why = "" if torch.version.cuda else "; this PyTorch was built without CUDA"
        raise ConfigError(f"{name}: no CUDA device here{why}; use device auto or cpu")
    if kind == "cuda" and number.isdecimal() and int(number) >= count:
        raise ConfigError(f"{name}: no such CUDA device here; there are {count}, from cuda:0 to cuda:{count - 1}")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"{name}: no Apple GPU here; use device auto or cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, NotImplementedError, AssertionError) as error:  # the last where PyTorch was built without it
        raise ConfigError(f"`device` {name!r} is not available here; use 'auto' or 'cpu' ({_line(error)})") from error
    return device


def share_gpu(share: float) -> None:
    """Keeps this process to a share of its GPU's memory, 0 to 1; batches that need more become smaller."""
    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(share * _USABLE)


class DeviceBatches:
    """Runs networks over many images, in batches that fit the memory of their device, without TF32.

    Args:
        device: of the networks.
        size: images in a batch; half of it from the first batch on that does not fit.
    """

    def __init__(self, device: torch.device, size: int | None = None) -> None:
        self._device = device
        self.size = size or _BATCH.get(device.type, 256)

    def run(
        self,
        function: Callable[[Tensor], tuple[Tensor, ...]],
        images: Any,
        prepare: Callable[[Any], Tensor] = torch.from_numpy,
        progress: Callable[[int], object] = lambda _: None,
    ) -> tuple[NDArray[np.float32], ...]:
        """The function's outputs for all images.

        Args:
            function: of a batch on the device.
            images: one or more, as a sequence or array.
            prepare: makes a tensor of a slice of them; the function gets it on the device.
            progress: gets the number of images of each batch that was started.

        Raises:
            ConfigError: the memory of the device is too small for a single image.
        """
        found, start = list[tuple[Tensor, ...]](), 0
        with torch.inference_mode(), exact_float32(self._device):
            while start < len(images):
                chosen = images[start : start + self.size]
                try:
                    found.append(function(prepare(chosen).to(self._device)))
                except RuntimeError as error:
                    if not _is_out_of_memory(error):
                        raise
                    self._shrink(len(chosen), error)
                    continue
                start += len(chosen)
                progress(len(chosen))
            return tuple(torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True))

    def _shrink(self, count: int, error: RuntimeError) -> None:
        if count == 1:
            raise ConfigError(
                f"{self._device}: its memory is too small for one face ({_line(error)}); end other programs that use "
                "it, or use device cpu"
            ) from error
        self.size = count // 2
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


_exact_lock = threading.Lock()
_exact_depth = 0
_tf32_before = (False, False)


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Turns TF32 off, with which NVIDIA GPUs round convolutions to 10 bits by default.

    The setting is the process's: it is put back when no thread is in such a context any more.
    """
    global _exact_depth, _tf32_before
    if device.type != "cuda":
        yield
        return
    convolutions, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    with _exact_lock:
        if _exact_depth == 0:
            _tf32_before = (convolutions.allow_tf32, matmul.allow_tf32)
            convolutions.allow_tf32 = matmul.allow_tf32 = False
        _exact_depth += 1
    try:
        yield
    finally:
        with _exact_lock:
            _exact_depth -= 1
            if _exact_depth == 0:
                convolutions.allow_tf32, matmul.allow_tf32 = _tf32_before


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in _OUT_OF_MEMORY)


def _line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "")[:200] or type(error).__name__
