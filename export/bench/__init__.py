"""Measurements, each a command: `python -m emotion_ai_export.bench.speed` and `.load`."""
