"""SIGTERM and SIGHUP end a command, whatever runs when they arrive."""

import signal
import subprocess
import sys

import pytest

SCRIPT = """
import signal, sys, time, weakref
from emotion_ai.cli.signals import terminable

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup

class Connection:
    pass

def close():
    print("closing", flush=True)
    time.sleep(1)

with terminable():
    try:
        if sys.argv[1] == "finalizer":
            connection = Connection()
            weakref.finalize(connection, close)
            del connection
        else:
            print("closing", flush=True)
        time.sleep(60)
    finally:
        print("undone", flush=True)
"""


@pytest.mark.parametrize("where", ["finalizer", "code"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_block(where: str, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, where], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "closing\n"
        process.send_signal(number)
        out, error = process.communicate(timeout=30)
    assert (process.returncode, out, error) == (128 + number, "undone\n", "")


def test_an_ignored_signal_stays_ignored() -> None:
    """As under nohup."""
    script = "import signal, os\nfrom emotion_ai.cli.signals import terminable\n"
    script += "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    script += "with terminable():\n    os.kill(os.getpid(), signal.SIGHUP)\n    print('went on')\n"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (0, "went on\n", "")
