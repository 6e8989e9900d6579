"""Benchmarks, each a command: `python -m emotion_ai_export.bench.speed`, `.load`, and `.compare` with a baseline."""
