"""`emotion-ai score` with the quick reader of the tests, as a process to be killed: SOURCE DEST SECONDS [ADDRESS]."""

import sys
from dataclasses import dataclass
from pathlib import Path

from emotion_ai.cli.console import fail, safe_output
from emotion_ai.cli.score_run import ScoreCommand, score_command
from emotion_ai.errors import EmotionAIError
from tests.scoring import fakes


@dataclass(frozen=True)
class QuickCommand(ScoreCommand):
    """Reads with the quick reader.

    Attributes:
        seconds: that a picture takes.
    """

    seconds: float = 0.0

    def reader(self) -> fakes.QuickSource:
        return fakes.QuickSource(seconds=self.seconds)


if __name__ == "__main__":
    source, dest, seconds, *address = sys.argv[1:]
    command = QuickCommand(
        sources=(source,),
        dest=Path(dest),
        workers=None if address else 2,
        seconds=float(seconds),
        address=(*address, None)[0],
    )
    with safe_output():
        try:
            sys.exit(score_command(command))
        except EmotionAIError as error:
            fail(error)
