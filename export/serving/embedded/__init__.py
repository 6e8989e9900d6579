"""The embedded server: TensorFlow Serving's REST and gRPC APIs on the same folders, for development and tests."""

NAME = "emotion-ai-embedded"
