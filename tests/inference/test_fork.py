"""Readers and clients in a forked process: they work or say what to do, and never hang."""

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

START = """
import os, pickle, signal, sys, threading
from emotion_ai.errors import EmotionAIError

def in_child(call):
    '''Prints what a forked process returns, its error, or that it hangs.'''
    sys.stdout.flush()
    if not (child := os.fork()):
        signal.alarm(20)
        try:
            print(call())
        except EmotionAIError as error:
            print(f"{type(error).__name__}: {error}")
        sys.stdout.flush()
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        print("hangs")
"""


def run(code: str) -> list[str]:
    code = START + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_reader_in_a_forked_process() -> None:
    text = "ConfigError: a FaceReader cannot be used after a fork; create it in the new process, or start processes by"
    lines = run("""
        import numpy as np
        import torch
        from emotion_ai.inference.reader import FaceReader
        from emotion_ai.models import FaceNetwork

        torch.set_num_threads(2)
        ENCODER = {"name": "residual", "widths": [16, 32], "depths": [1, 1], "stem_stride": 2}
        CROPS = np.random.default_rng(0).integers(0, 256, (16, 96, 96), np.uint8)

        def reader():
            torch.manual_seed(0)
            return FaceReader(FaceNetwork("keypoints", ENCODER).eval(), FaceNetwork("emotion", ENCODER).eval())

        first = reader()
        expected = first.read_crops(CROPS).keypoints
        in_child(lambda: first.read_crops(CROPS))
        in_child(lambda: first.read("a.jpg"))
        in_child(lambda: np.abs(reader().read_crops(CROPS).keypoints - expected).max() < 1e-3)
        packed = pickle.dumps(first)
        in_child(lambda: np.abs(pickle.loads(packed).read_crops(CROPS).keypoints - expected).max() < 1e-3)
        print(np.array_equal(first.read_crops(CROPS).keypoints, expected))
    """)
    assert lines == [f"{text} spawn", f"{text} spawn", "True", "True", "True"]


def test_the_detector_works_in_a_forked_process() -> None:
    """Even if another thread was detecting during the fork."""
    lines = run("""
        from emotion_ai.vision import blazeface
        from emotion_ai.vision.detector import find_faces
        from emotion_ai.vision.photo import PORTRAITS, load_photo
        rgb = load_photo(PORTRAITS[0]).rgb
        find_faces(rgb)
        with blazeface._lock:
            in_child(lambda: len(find_faces(rgb)))
        print(len(find_faces(rgb)))
    """)
    assert lines == ["1", "1"]


def test_clients_in_a_forked_process() -> None:
    """REST opens connections of its own, gRPC says what to do."""
    pytest.importorskip("grpc")
    lines = run("""
        import json
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
        from emotion_ai.client import FaceClient
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            def do_GET(self):
                port = self.client_address[1]
                body = json.dumps({"model_version_status": [{"version": port, "state": "AVAILABLE"}]}).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            def log_message(self, *_):
                pass
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = FaceClient(f"http://127.0.0.1:{server.server_port}", timeout=5)
        (port,) = client.versions()
        in_child(lambda: port not in client.versions())
        print(list(client.versions()) == [port])
        rpc = FaceClient("grpc://127.0.0.1:1", timeout=1, retries=0)
        print(rpc.ready())
        in_child(rpc.status)
        in_child(rpc.close)
        print(pickle.loads(pickle.dumps(client)).versions().popitem()[1])
        print(pickle.loads(pickle.dumps(rpc)).ready())
    """)
    message = "ConfigError: grpc://127.0.0.1:1: a gRPC client cannot be used after a fork; create it in the new process"
    assert lines == ["True", "True", "False", message, "None", "AVAILABLE", "False"]
