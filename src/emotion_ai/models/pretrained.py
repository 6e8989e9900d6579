"""Weights of encoders of torchvision and timm, from safetensors files."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from emotion_ai.errors import CheckpointError, ConfigError
from emotion_ai.models.library import TimmEncoder, TorchvisionEncoder

_NAMED = 3


@torch.no_grad()
def load_encoder_weights(encoder: nn.Module, path: str | Path) -> None:
    """Takes the weights of a file with the library's own names, such as timm's `model.safetensors`.

    The classifier's are ignored. Kernels of the first convolution are summed over red, green and blue, so that it sees
    a gray face as it would in three equal channels. Position embeddings of other sizes are resampled as timm does.

    Raises:
        CheckpointError: no readable safetensors file, or one of another encoder.
        ConfigError: an encoder of neither library.
    """
    if not isinstance(encoder, TimmEncoder | TorchvisionEncoder):
        raise ConfigError(
            f"model.encoder.weights={path}: is for encoders of timm and torchvision; give a checkpoint as init_from="
        )
    given, wanted = _read(Path(path)), encoder.library_tensors()
    fitted = _fitted(encoder, given, wanted)
    if problems := _problems(fitted, wanted):
        try:
            fitted = _fitted(encoder, _translated(encoder, given), wanted)
        except Exception:  # of a function for another file's content, of any kind
            fitted = {}
        if _problems(fitted, wanted):
            raise CheckpointError(f"{path}: does not fit the encoder: {'; '.join(problems)}; give its own weights")
    for name, tensor in fitted.items():
        if not tensor.isfinite().all():
            raise CheckpointError(f"{path}: {name} is not finite; download it again, or give other weights")
    for name, tensor in fitted.items():
        wanted[name].copy_(tensor)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file of weights; give a .safetensors file")
    try:
        with safe_open(path, "pt") as file:
            if "contract" in (file.metadata() or {}):
                raise CheckpointError(f"{path}: is a checkpoint of emotion-ai; start from it with init_from=")
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({error}); files of other kinds are not loaded"
        ) from error


def _translated(encoder: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as timm changes those of other sizes and older names while it loads them."""
    if not isinstance(encoder, TimmEncoder):
        return dict(tensors)
    module = sys.modules[type(encoder.net).__module__]
    changed: dict[str, Tensor] = module.checkpoint_filter_fn(dict(tensors), encoder.net)
    return changed


def _fitted(
    encoder: TimmEncoder | TorchvisionEncoder, tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors without the classifier's; kernels for three channels become those for one."""
    fitted = {name: tensor for name, tensor in tensors.items() if not name.startswith(encoder.ignored)}
    for layer in encoder.first_convolutions:
        kernel, own = fitted.get(f"{layer}.weight"), wanted.get(f"{layer}.weight")
        if kernel is None or own is None or kernel.ndim != 4:
            continue
        outputs, channels, *sides = kernel.shape
        if (outputs, channels, *sides) == (own.shape[0], 3 * own.shape[1], *own.shape[2:]):
            fitted[f"{layer}.weight"] = kernel.float().reshape(outputs, own.shape[1], 3, *sides).sum(2)
    return fitted


def _problems(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """What does not fit, with names. Counts of batches, which older files lack, may be missing."""
    missing = [n for n in wanted if n not in given and not n.endswith("num_batches_tracked")]
    found = []
    if missing:
        found.append(f"missing {_some(missing)}")
    if unexpected := [name for name in given if name not in wanted]:
        found.append(f"unexpected {_some(unexpected)}")
    both = [(name, given[name], wanted[name]) for name in wanted if name in given]
    if wrong := [
        f"{name} {list(tensor.shape)} and not {list(own.shape)}"
        for name, tensor, own in both
        if tensor.shape != own.shape
    ]:
        found.append(f"other shapes: {_some(wrong)}")
    if wrong := [
        f"{name} {tensor.dtype}" for name, tensor, own in both if tensor.is_floating_point() != own.is_floating_point()
    ]:
        found.append(f"other types: {_some(wrong)}")
    return found


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
