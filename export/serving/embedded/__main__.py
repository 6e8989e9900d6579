"""`python -m emotion_ai_export.serving.embedded BASE`: the embedded server as a process."""

import argparse
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from emotion_ai.addresses import bind, host_port
from emotion_ai.terminal import escaped
from emotion_ai_export.serving.embedded import NAME
from emotion_ai_export.serving.embedded.limits import Limits

log = logging.getLogger("emotion_ai_export.serving.embedded")

_GRACE, _RPC_GRACE = 20, 5  # seconds to finish open requests, one after the other


class _Lines(logging.Formatter):
    """Control characters of names and of TensorFlow's texts are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        return escaped(super().format(record))


def main() -> None:
    parser = argparse.ArgumentParser(prog="emotion_ai_export.serving.embedded", description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--rest-port", type=int, default=8501)
    parser.add_argument("--grpc-port", type=int, default=8500)
    parser.add_argument("--grpc-max-threads", type=int, default=Limits().pending, help="calls at once, by gRPC")
    parser.add_argument("--poll-seconds", type=float, default=1.0)
    parser.add_argument("--until-stdin-closes", action="store_true", help="stop when the parent process ends")
    options = parser.parse_args()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(f"{NAME}: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    if options.until_stdin_closes:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback of what is imported or loaded
    # bound before TensorFlow is imported, so a taken port fails at once; nobody can connect until it listens
    try:
        listener = bind(options.host, options.rest_port)
    except OSError as error:
        place = host_port(options.host, options.rest_port)
        sys.exit(f"{NAME}: cannot listen on {place}: {error.strerror}")
    import uvicorn

    from emotion_ai_export.serving.embedded.app import create_app
    from emotion_ai_export.serving.embedded.connections import LimitedProtocol
    from emotion_ai_export.serving.embedded.rpc import start_rpc
    from emotion_ai_export.serving.embedded.store import ModelStore

    store = ModelStore(options.base, options.poll_seconds)
    store.start()  # before the ports open, as in TensorFlow Serving: no request finds a model or label missing
    try:
        rpc, grpc_port = start_rpc(
            store, host_port(options.host, options.grpc_port), Limits(pending=options.grpc_max_threads)
        )
    except OSError as error:
        sys.exit(f"{NAME}: {error}")
    place = host_port(*listener.getsockname()[:2])
    log.info("stand-in for TensorFlow Serving, REST on http://%s, gRPC on port %d", place, grpc_port)
    app = create_app(store, stop=lambda: rpc.stop(_RPC_GRACE).wait())
    # open requests are finished before the process ends
    config = uvicorn.Config(
        app, http=LimitedProtocol, ws="none", log_level="error", server_header=False, timeout_graceful_shutdown=_GRACE
    )
    uvicorn.Server(config).run(sockets=[listener])


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
