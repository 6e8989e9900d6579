"""Video: who showed what, when."""

from emotion_ai.video.reading import FaceTracker, VideoReader, read

__all__ = ["FaceTracker", "VideoReader", "read"]
