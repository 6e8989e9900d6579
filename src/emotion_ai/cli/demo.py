"""The command `emotion-ai demo`."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="Folder for runs, models and demo.png.")] = Path("demo"),
    fast: Annotated[bool, typer.Option("--fast", help="Train for a few seconds, only to try every step.")] = False,
) -> None:
    """Train, export, serve and predict on synthetic faces; writes demo.png."""
    from emotion_ai_export.demo import demo

    demo(out, fast)
