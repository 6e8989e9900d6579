"""Random numbers that are functions of (seed, epoch, sample), not of what ran before.

A run that was stopped and resumed, or spread over other devices, therefore draws the same numbers. The mixing function
is SplitMix64 (Steele, Lea, Flood 2014, doi:10.1145/2660193.2660195).
"""

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed number
_MIX1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX2 = -7723592293110705685  # 0x94D049BB133111EB


def _shift(x: Tensor, bits: int) -> Tensor:
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)  # int64 shifts keep the sign


def mix(x: Tensor) -> Tensor:
    """SplitMix64 of each number, int64 to int64, wrapping."""
    x = x + _GOLDEN  # changed in place from here on: for noise, these are the largest arrays of a batch
    x.bitwise_xor_(_shift(x, 30)).mul_(_MIX1)
    x.bitwise_xor_(_shift(x, 27)).mul_(_MIX2)
    return x.bitwise_xor_(_shift(x, 31))


def sample_keys(seed: int, epoch: int, samples: Tensor) -> Tensor:
    """One key for each sample, int64 (B,); samples are row numbers of the dataset, int64 (B,)."""
    base = int(mix(mix(torch.tensor(seed)) + epoch))  # on the processor: no wait for a GPU
    return mix(base + samples)


def uniform(keys: Tensor, count: int, stream: int) -> Tensor:
    """`count` numbers in [0, 1) for each key, float32 (B, count); every use has its own stream number."""
    counters = torch.arange(count, device=keys.device) + (stream << 32)
    bits = mix(keys[:, None] + mix(counters))
    return _shift(bits, 40).float().div_(1 << 24)
