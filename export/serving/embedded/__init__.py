"""The embedded server: TensorFlow Serving's REST API from the same folders, for development and tests."""

NAME = "emotion-ai-embedded"
