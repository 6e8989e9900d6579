"""What a command does with the signals that end it."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

_AGAIN_SECONDS = 0.05


class _Ended(SystemExit):
    """A signal ends the command."""


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block like an exception, so that what was begun is finished or undone.

    The exit code is 128 plus the signal's number, as a shell has it. Signals that are ignored stay so. Python drops an
    exception that is raised while a finalizer runs, and HTTP connections have one; then the signal is sent once more.
    """
    main = threading.main_thread()
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    changed = [number for number in numbers if before[number] not in (signal.SIG_IGN, None)]
    if threading.current_thread() is not main or not changed:  # only that one can handle signals
        yield
        return

    def stop(number: int, _: object) -> NoReturn:
        raise _Ended(128 + number)

    def dropped(error: "sys.UnraisableHookArgs") -> None:
        if isinstance(error.exc_value, _Ended):
            again = (main.ident, int(error.exc_value.code or 0) - 128)
            threading.Timer(_AGAIN_SECONDS, signal.pthread_kill, again).start()
        else:
            hook(error)

    hook, sys.unraisablehook = sys.unraisablehook, dropped
    for number in changed:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, before[number])
        sys.unraisablehook = hook
