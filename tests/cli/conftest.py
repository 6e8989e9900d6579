"""A server that speaks TensorFlow Serving's REST protocol, and can go away."""

import json
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from emotion_ai.contract import MEAN_FACE

FACE = {"keypoints": [list(point) for point in MEAN_FACE], "probabilities": [0.1, 0.05, 0.05, 0.7, 0.1]}
UNKNOWN_SIGNATURE = 'Serving signature name: "serving_classes" not found in signature def'


class StubServer:
    """Reads every face as the mean face, 70 % happy.

    Attributes:
        url: its address, also while it is stopped.
        respond: replaces the response if it returns a status and a body, given the number of the request.
        requests: how many it got, without those for the classes.
    """

    def __init__(self) -> None:
        self.respond: Callable[[int], tuple[int, str] | None] = lambda number: None
        self.requests = 0
        self._port = 0
        self.start()
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if body["signature_name"] == "serving_classes":  # of a version from before there were any others
                    status, text = 400, json.dumps({"error": UNKNOWN_SIGNATURE})
                else:
                    stub.requests += 1
                    status, text = stub.respond(stub.requests) or (
                        200,
                        json.dumps({"predictions": [FACE] * len(body["instances"])}),
                    )
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._http.daemon_threads = True
        self._port = self._http.server_port
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def away(self, seconds: float) -> None:
        """Refuses connections for a while, from another thread."""

        def pause() -> None:
            self.stop()
            restart = threading.Timer(seconds, self.start)
            restart.start()
            restart.join()

        threading.Thread(target=pause).start()


@pytest.fixture
def stub_server() -> Iterator[StubServer]:
    server = StubServer()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def _interruptible() -> None:
    """Processes started by a test would inherit an ignored Ctrl-C, and then never end by it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
