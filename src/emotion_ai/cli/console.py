"""How the command line reports an error, and what its output goes through."""

import errno
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from emotion_ai.errors import EmotionAIError
from emotion_ai.terminal import escaped, print_error

_ADVICE = {
    errno.ENOSPC: "free some space, or write to another disk",
    errno.EDQUOT: "free some of your quota, or write to another disk",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f), or write to another disk",
    errno.EROFS: "write to another folder",
    errno.EACCES: "check the permissions, or use another folder",
    errno.EPERM: "check the permissions, or use another folder",
    errno.EISDIR: "give a file",
    errno.ENOTDIR: "a part of this path is a file; give another one",
    errno.EEXIST: "move it away, or give another path",
    errno.ENOENT: "check the path",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ELOOP: "symbolic links lead in a circle; give another path",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.EIO: "check the disk",
}


def fail(error: EmotionAIError | OSError) -> NoReturn:
    """Prints the error as one line on stderr and exits with its code, 2 for errors of the operating system."""
    if isinstance(error, EmotionAIError):
        print_error(error)
        sys.exit(error.exit_code)
    print_error(explain(error))
    sys.exit(2)


@contextmanager
def safe_output() -> Iterator[None]:
    """Characters that stdout cannot show are escaped, as control characters of errors are; a closed pipe ends quietly.

    Closed standard streams are opened to nothing: the next file would get their number, and what libraries print to
    them. The exit code is 1 if whoever reads stdout, such as `head`, went away.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(number, True)
    os.close(number)
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")
    try:
        yield
    except Exception:
        sys.stderr.write(escaped(traceback.format_exc()))
        sys.exit(1)
    finally:
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)


def explain(error: OSError) -> str:
    """What the operating system refused, at which path, and what to do."""
    where = "" if error.filename is None else f"{error.filename}: "
    advice = f"; {_ADVICE[error.errno]}" if error.errno in _ADVICE else ""
    return f"{where}{error.strerror or str(error) or type(error).__name__}{advice}"
