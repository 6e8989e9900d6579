"""Networks, and their weights on disk."""

from emotion_ai.models.checkpoint import bundled, load_network, save_network
from emotion_ai.models.network import FaceNetwork

__all__ = ["FaceNetwork", "bundled", "load_network", "save_network"]
