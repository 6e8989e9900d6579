"""A client for TensorFlow Serving over REST or gRPC; needs neither TensorFlow nor PyTorch."""

from emotion_ai.client.address import ServerAddress
from emotion_ai.client.async_client import AsyncFaceClient
from emotion_ai.client.face_client import FaceClient

__all__ = ["AsyncFaceClient", "FaceClient", "ServerAddress"]
