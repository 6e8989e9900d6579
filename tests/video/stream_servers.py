"""Small servers of video over HTTP and RTSP that can be slow, silent, or cut off."""

import re
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Serve = Callable[[BaseHTTPRequestHandler, int], None]
"""Answers a request; also gets how many there were before."""


@contextmanager
def http_server(serve: Serve) -> Iterator[str]:
    """The address of a server of /clip."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            with suppress(OSError):  # the client has left
                serve(self, len(requests) - 1)

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/clip"
        finally:
            server.shutdown()


def send(request: BaseHTTPRequestHandler, content: bytes, length: int | None, pace: float = 0.0) -> None:
    """A response with so much content, in 50 slices with a pause after each; without a length it is a live stream."""
    request.send_response(200)
    request.send_header("Content-Type", "video/mp2t" if length is None else "video/mp4")
    if length is not None:
        request.send_header("Content-Length", str(length))
    request.end_headers()
    step = max(len(content) // 50, 1)
    for start in range(0, len(content), step):
        request.wfile.write(content[start : start + step])
        time.sleep(pace)


class _RtspHandler(socketserver.StreamRequestHandler):
    """Plays an MPEG-TS file over the connection itself, as RTP of payload type 33 (RFC 2250)."""

    def handle(self) -> None:
        server: Any = self.server
        number = server.connections
        server.connections += 1
        while True:
            lines: list[str] = []
            while (line := self.rfile.readline().decode().strip()) or not lines:
                if not line:
                    return
                lines.append(line)
            method, sequence = lines[0].split()[0], re.search(r"CSeq: (\d+)", "\n".join(lines), re.IGNORECASE)
            head, body = f"RTSP/1.0 200 OK\r\nCSeq: {sequence[1] if sequence else 0}\r\nSession: 1\r\n", ""
            if method == "DESCRIBE":
                body = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=a\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:track\r\n"
                head += f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
            if method == "SETUP":
                head += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
            self.wfile.write(f"{head}\r\n{body}".encode())
            if method == "PLAY":
                with suppress(OSError):
                    self._play(server.content, number)
                return

    def _play(self, content: bytes, number: int) -> None:
        for index, start in enumerate(range(0, len(content), 7 * 188)):
            payload = content[start : start + 7 * 188]
            header = bytes([128, 33]) + index.to_bytes(2, "big") + (index * 900).to_bytes(4, "big") + b"\0\0\0\1"
            self.wfile.write(b"$\0" + (12 + len(payload)).to_bytes(2, "big") + header + payload)
            time.sleep(0.002)
        if number:  # the first one is cut off, the others fall silent
            time.sleep(5)


@contextmanager
def rtsp_server(content: bytes) -> Iterator[str]:
    """The address of a server that plays an MPEG-TS file: it cuts off the first connection, and lets others stall."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _RtspHandler) as server:
        server.daemon_threads, server.block_on_close = True, False
        server.content, server.connections = content, 0  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"rtsp://127.0.0.1:{server.server_address[1]}/clip"
        finally:
            server.shutdown()


@contextmanager
def silent_server() -> Iterator[int]:
    """The port of a server that accepts connections and says nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]
