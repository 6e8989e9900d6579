"""What `network_speed` measures of each network."""

from dataclasses import dataclass, field

from emotion_ai_export.bench.backends import ONNX_RUNTIME, ONNX_TF

ONNX2TF = "onnx2tf"
PEERS = (ONNX_TF, ONNX2TF, ONNX_RUNTIME)
BATCHES = (1, 8)

Times = dict[str, dict[str, list[float]]]
"""Milliseconds of a call in each round, by batch and backend."""


@dataclass(frozen=True)
class NetworkSpeed:
    """Of one network.

    Attributes:
        notes: why a backend was not timed: "not converted" or "wrong".
        times: processor time of all threads.
        elapsed: the time that a caller waits.
    """

    network: str
    notes: dict[str, str] = field(default_factory=dict)
    times: Times = field(default_factory=dict)
    elapsed: Times = field(default_factory=dict)
    seconds: float = 0.0
