"""What a long command does with SIGTERM."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from emotion_ai.errors import TERMINATED


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Makes SIGTERM raise SystemExit(143) in the block, so that partial files are removed, as they are after Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():  # only this one can handle signals
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
