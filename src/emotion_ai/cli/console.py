"""How the command line reports an error."""

import errno
import sys
from typing import NoReturn

from rich.console import Console
from rich.markup import escape

from emotion_ai.errors import EmotionAIError

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
    """Prints the error as one line on stderr and exits with 2."""
    text = str(error) if isinstance(error, EmotionAIError) else explain(error)
    message = escape(" ".join(text.split()))
    Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {message}", highlight=False)
    sys.exit(2)


def explain(error: OSError) -> str:
    """What the operating system refused, at which path, and what to do."""
    where = "" if error.filename is None else f"{error.filename}: "
    advice = f"; {_ADVICE[error.errno]}" if error.errno in _ADVICE else ""
    return f"{where}{error.strerror or str(error) or type(error).__name__}{advice}"
