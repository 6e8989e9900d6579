"""Real servers and proxies on this machine: REST and gRPC, with and without TLS, that answer or fail as told."""

import json
import select
import shutil
import socket
import ssl
import subprocess
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import numpy as np

from emotion_ai.client import protos
from emotion_ai.contract import MEAN_FACE
from emotion_ai.vision.photo import PORTRAITS

STATUS = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
FACE = {"keypoints": [list(point) for point in MEAN_FACE], "probabilities": [0.1, 0.05, 0.05, 0.7, 0.1]}


@dataclass(frozen=True)
class Fault:
    """What a server answers instead; over REST as TensorFlow Serving's JSON unless `body` is given."""

    status: int
    text: str = ""
    code: str = ""
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass
class Network:
    """Servers that answer alike, and the headers of the requests that they got.

    Attributes:
        ca: file of the certificate that "secure" servers have.
        key: its key.
        faults: for the next requests; the last one repeats if `lasting`.
    clients: file of the client certificate that "secure" servers demand, if they do.
    """

    ca: Path
    key: Path
    photo: Path = PORTRAITS[0]
    headers: list[dict[str, str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    lasting: bool = False
    clients: Path | None = None
    ports: dict[tuple[str, str], int] = field(default_factory=dict)

    def rest(self, kind: str = "plain") -> str:
        return f"http{'s' if kind.startswith('secure') else ''}://{_host(kind)}:{self.ports['http', kind]}"

    def grpc(self, kind: str = "plain") -> str:
        return f"grpc{'s' if kind.startswith('secure') else ''}://{_host(kind)}:{self.ports['grpc', kind]}"

    def both(self, kind: str = "plain") -> tuple[str, str]:
        return self.rest(kind), self.grpc(kind)

    def arrived(self, headers: Any) -> Fault | None:
        """Notes a request; returns how it fails."""
        self.headers.append({str(name): str(value) for name, value in headers})
        if not self.faults:
            return None
        return self.faults[0] if self.lasting and len(self.faults) == 1 else self.faults.pop(0)


KINDS = ("plain", "secure", "plain6", "secure6")


def _host(kind: str) -> str:
    return "[::1]" if kind.endswith("6") else "127.0.0.1"


@contextmanager
def network(folder: Path, kinds: Sequence[str] = KINDS, clients: Path | None = None) -> Iterator[Network]:
    """Two servers of each kind that share their faults."""
    found = Network(folder / "cert.pem", folder / "key.pem", clients=clients)
    make_certificate(found.ca, found.key)
    https, rpcs = [], []
    for kind in kinds if socket.has_ipv6 else [kind for kind in kinds if not kind.endswith("6")]:
        server = rest_server(found, kind)
        https.append(server)
        found.ports["http", kind] = server.server_port
        rpc, found.ports["grpc", kind] = _rpc(found, kind)
        rpcs.append(rpc)
    yield found
    for server in https:
        server.shutdown()
        server.server_close()
    for rpc in rpcs:
        rpc.stop(None)


def make_certificate(ca: Path, key: Path, names: str = "DNS:localhost,IP:127.0.0.1,IP:::1") -> None:
    """A self-signed certificate."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += [
        "-keyout",
        str(key),
        "-out",
        str(ca),
        "-days",
        "30",
        "-subj",
        "/CN=test",
        "-addext",
        f"subjectAltName={names}",
    ]
    subprocess.run(command, check=True, capture_output=True)


HAS_OPENSSL = shutil.which("openssl") is not None


def rest_server(net: Network, kind: str, port: int = 0) -> ThreadingHTTPServer:
    """A server of the REST API."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            content = self.rfile.read(int(self.headers.get("content-length", 0)))
            fault = net.arrived(self.headers.items())
            if fault is not None:
                body = json.dumps({"error": fault.text}).encode() if fault.body is None else fault.body
                self.answer(fault.status, body, fault.headers)
            elif self.command == "POST":
                asked = json.loads(content)
                if (name := asked["signature_name"]) != "serving_bytes":
                    text = f'Serving signature name: "{name}" not found in signature def'
                    self.answer(400, json.dumps({"error": text}).encode())
                else:
                    self.answer(200, json.dumps({"predictions": [FACE] * len(asked["instances"])}).encode())
            else:
                self.answer(200, json.dumps({"model_version_status": [STATUS]}).encode())

        do_POST = do_GET

        def answer(self, status: int, body: bytes, headers: Any = ()) -> None:
            self.send_response(status)
            for name, value in (("content-length", str(len(body))), *headers):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    return _http_server(Handler, kind, net, port)


def _http_server(handler: Any, kind: str = "plain", net: Network | None = None, port: int = 0) -> ThreadingHTTPServer:
    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if kind.endswith("6") else socket.AF_INET
        daemon_threads = True

        def handle_error(self, *_: Any) -> None: ...  # of handshakes that fail

    server = Server((_host(kind).strip("[]"), port), handler)
    if kind.startswith("secure") and net:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(net.ca, net.key)
        if net.clients:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(net.clients)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server


def _rpc(net: Network, kind: str) -> tuple[grpc.Server, int]:
    def respond(request: bytes, context: Any, path: str) -> bytes:
        fault = net.arrived(context.invocation_metadata())
        if fault is not None:
            context.abort(getattr(grpc.StatusCode, fault.code), fault.text)
        if path == protos.GET_MODEL_STATUS:
            known = protos.GetModelStatusResponse(model_version_status=[{"version": 1, "state": 30}])
            return bytes(known.SerializeToString())
        asked = protos.PredictRequest.FromString(request)
        if (name := asked.model_spec.signature_name) != "serving_bytes":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
        count = len(asked.inputs["image_bytes"].string_val)
        response = protos.PredictResponse()
        for name, values in FACE.items():
            response.outputs[name].CopyFrom(protos.tensor(np.array([values] * count, np.float32)))
        return bytes(response.SerializeToString())

    class Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, call: Any) -> Any:
            path = call.method
            if path not in (protos.PREDICT, protos.GET_MODEL_STATUS):
                return None
            return grpc.unary_unary_rpc_method_handler(lambda request, context: respond(request, context, path))

    server = grpc.server(ThreadPoolExecutor(40))
    server.add_generic_rpc_handlers([Handlers()])
    if kind.startswith("secure"):
        trusted = net.clients.read_bytes() if net.clients else None
        own = [(net.key.read_bytes(), net.ca.read_bytes())]
        credentials = grpc.ssl_server_credentials(own, trusted, require_client_auth=trusted is not None)
        port = server.add_secure_port(f"{_host(kind)}:0", credentials)
    else:
        port = server.add_insecure_port(f"{_host(kind)}:0")
    server.start()
    return server, port


def refusing_port() -> int:
    """A port where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def silence() -> Iterator[int]:
    """The port of a server that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextmanager
def talking(serve: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port of a server that hands each connection, after its handshake, to `serve`."""

    def talk(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            if tls is None:
                serve(connection)
                return
            with tls.wrap_socket(connection, server_side=True) as stream:
                serve(stream)

    def answer(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def server_tls(net: Network) -> ssl.SSLContext:
    """TLS with the certificate of "secure" servers, which demands that of the client if they do."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(net.ca, net.key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    if net.clients:
        context.load_verify_locations(net.clients)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@contextmanager
def proxy(login: str | None = None, refuse: int = 0) -> Iterator[tuple[int, list[str]]]:
    """The port of an HTTP proxy and the requests that went through it.

    Args:
        login: USER:PASSWORD that it wants.
        refuse: status with which it answers every request.
    """
    passed: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def allowed(self) -> bool:
            given = self.headers.get("proxy-authorization", "").removeprefix("Basic ")
            status = 407 if login and b64decode(given).decode() != login else refuse
            if status:
                self.send_error(status)
            else:
                passed.append(f"{self.command} {self.path}")
            return not status

        def do_CONNECT(self) -> None:
            if not self.allowed():
                return
            host, _, port = self.path.rpartition(":")
            with socket.create_connection((host.strip("[]"), int(port))) as other, suppress(OSError):
                self.send_response(200)
                self.end_headers()
                ends = {self.connection: other, other: self.connection}
                while True:
                    for end in select.select(list(ends), [], [])[0]:
                        part = end.recv(65536)
                        if not part:
                            return
                        ends[end].sendall(part)

        def do_GET(self) -> None:
            content = self.rfile.read(int(self.headers.get("content-length", 0)))
            if not self.allowed():
                return
            parts = urlsplit(self.path)
            other = HTTPConnection(parts.hostname or "", parts.port)
            other.request(self.command, parts.path, content, dict(self.headers))
            response = other.getresponse()
            body = response.read()
            other.close()
            self.send_response(response.status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_: Any) -> None: ...

    server = _http_server(Handler)
    yield server.server_port, passed
    server.shutdown()
    server.server_close()
