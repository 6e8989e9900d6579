"""How the command line reports an error."""

import sys
from typing import NoReturn

from rich.console import Console
from rich.markup import escape

from emotion_ai.errors import EmotionAIError


def fail(error: EmotionAIError) -> NoReturn:
    """Prints the error as one line on stderr and exits with 2."""
    message = escape(" ".join(str(error).split()))
    Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {message}", highlight=False)
    sys.exit(2)
