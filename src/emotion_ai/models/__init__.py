"""Networks and their checkpoints."""

from emotion_ai.models.checkpoint import LoadedNetwork, bundled, load_network, save_network
from emotion_ai.models.network import FaceNetwork
from emotion_ai.models.spec import ModelSpec

__all__ = ["FaceNetwork", "LoadedNetwork", "ModelSpec", "bundled", "load_network", "save_network"]
