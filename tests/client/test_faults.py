"""The same situation is the same error over REST and gRPC, in one line that says what to do."""

import logging
import socket
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from emotion_ai import errors
from emotion_ai.client import FaceClient
from tests.client.networks import KINDS, Fault, Network, make_certificate, proxy, refusing_port, rest_server, silence

CROP = np.zeros((1, 9, 9), np.uint8)
SECRET = "s3cret"

SITUATIONS = {
    "overloaded": (
        Fault(429, "Server Threadpool Exhausted", "RESOURCE_EXHAUSTED"),
        errors.ServerUnavailableError,
        "Server Threadpool Exhausted; the server is overloaded or not ready; try again later",
    ),
    "not ready": (Fault(503, "queue is full", "UNAVAILABLE"), errors.ServerUnavailableError, "queue is full; the serv"),
    "its deadline": (Fault(504, "late", "DEADLINE_EXCEEDED"), errors.ServerTimeoutError, "is the server overloaded?"),
    "model": (Fault(404, "Servable not found", "NOT_FOUND"), errors.ModelNotFoundError, "Servable not found"),
    "version": (
        Fault(404, "Servable not found for request: Specific(face, 9)", "NOT_FOUND"),
        errors.ModelNotFoundError,
        "Specific(face, 9)",
    ),
    "label": (
        Fault(400, "Unrecognized servable version label: x", "INVALID_ARGUMENT"),
        errors.ModelNotFoundError,
        "Unrecognized servable version label: x",
    ),
    "signature": (
        Fault(400, 'Serving signature "x" not found', "FAILED_PRECONDITION"),
        errors.RequestRejectedError,
        'Serving signature "x" not found',
    ),
    "input": (Fault(400, "no picture", "INVALID_ARGUMENT"), errors.RequestRejectedError, "no picture"),
    "too large": (
        Fault(413, "Received message larger than max (5 vs. 4)", "RESOURCE_EXHAUSTED"),
        errors.RequestRejectedError,
        "the request is too large; send fewer or smaller images",
    ),
    "401": (Fault(401, "who?", "UNAUTHENTICATED"), errors.AccessDeniedError, "wants a login or token; give it as http"),
    "403": (Fault(403, "no", "PERMISSION_DENIED"), errors.AccessDeniedError, "access is denied; use another"),
    "conflict": (Fault(409, "aborted", "ABORTED"), errors.RequestRejectedError, "aborted"),
    "cancelled": (Fault(499, "cancelled", "CANCELLED"), errors.ServerFailureError, "cancelled"),
    "internal": (Fault(500, "broken", "INTERNAL"), errors.ServerFailureError, "broken"),
    "not served": (Fault(501, "what?", "UNIMPLEMENTED"), errors.ServerFailureError, "is this TensorFlow Serving?"),
}


def failure(url: str, **settings: object) -> errors.ClientError:
    """The error of a request, one printable line."""
    client = FaceClient(url, **{"timeout": (1.0, 3.0), "retries": 0, **settings})  # type: ignore[arg-type]
    with client, pytest.raises(errors.ClientError) as caught:
        client.status()
    assert str(caught.value).isprintable()
    return caught.value


def same(urls: Sequence[str], kind: type[Exception], *texts: str, **settings: object) -> None:
    """All addresses give the same class, with the texts."""
    for url in urls:
        error = failure(url, **settings)
        assert type(error) is kind, error
        for text in texts:
            assert text in str(error)


@pytest.mark.parametrize("case", SITUATIONS)
def test_a_response_that_is_none(case: str, network: Network) -> None:
    fault, kind, text = SITUATIONS[case]
    network.faults, network.lasting = [fault], True
    same(network.both(), kind, text)


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (401, errors.AccessDeniedError, "401 Unauthorized; the server wants a login or token"),
        (403, errors.AccessDeniedError, "403 Forbidden; access is denied"),
        (407, errors.AccessDeniedError, "407 Proxy Authentication Required; the proxy wants a login"),
        (413, errors.RequestRejectedError, "the request is too large"),
        (429, errors.ServerUnavailableError, "429 Too Many Requests; the server is overloaded"),
        (502, errors.ServerUnavailableError, "502 Bad Gateway; the proxy does not reach the server"),
        (404, errors.ServerFailureError, "returned 404 without JSON; is this TensorFlow Serving?"),
        (405, errors.ServerFailureError, "returned 405 without JSON; is this TensorFlow Serving?"),
    ],
)
def test_a_page_of_a_proxy(status: int, kind: type[Exception], text: str, network: Network) -> None:
    network.faults = [Fault(status, body=b"<html>secret page</html>")]
    error = failure(network.rest())
    assert type(error) is kind
    assert text in str(error)
    assert "secret page" not in str(error)


@pytest.mark.parametrize("body", [b'{"detail": "Not Found"}', b"[]", b'{"error": 7}'])
def test_another_service_is_not_a_missing_model(body: bytes, network: Network) -> None:
    network.faults = [Fault(404, body=body)]
    error = failure(network.rest())
    assert type(error) is errors.ServerFailureError
    assert "404 with other JSON; is this TensorFlow Serving?" in str(error)


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate"])
def test_a_response_that_is_not_compressed_as_it_says(encoding: str, network: Network) -> None:
    network.faults = [Fault(200, body=b"{}", headers=(("Content-Encoding", encoding),))]
    error = failure(network.rest())
    assert type(error) is errors.ServerFailureError
    assert "cannot be decompressed" in str(error) or "without JSON" in str(error)  # "br" takes a package


@pytest.mark.parametrize(
    ("target", "kind", "text"),
    [
        ("https://127.0.0.1/v1?token=s3cret", errors.ConnectionSettingsError, "write https:// instead of http://"),
        (
            "https://me:s3cret@sso.example.org/login?next=s3cret",
            errors.ServerFailureError,
            "is a login page before it?",
        ),
        ("/elsewhere", errors.ServerFailureError, "redirects to /elsewhere; redirects are not followed"),
        ("/signed-in#access_token=s3cret", errors.ServerFailureError, "redirects to /signed-in; redirects"),
        (f"https://me:{'x' * 200}s3cret@sso.example.org/", errors.ServerFailureError, "redirects to https://sso."),
        ("http://me:s3cret@[::1", errors.ServerFailureError, "redirects to a malformed address"),
        ("http://[x@h]", errors.ServerFailureError, "redirects to"),
    ],
)
def test_a_redirect(target: str, kind: type[Exception], text: str, network: Network) -> None:
    network.faults = [Fault(302, body=b"", headers=(("Location", target),))]
    error = failure(network.rest())
    assert type(error) is kind
    assert text in str(error)
    assert SECRET not in str(error)


@pytest.mark.parametrize(
    "body", [b"Client sent an HTTP request to an HTTPS server.\n", b"The plain HTTP request was sent to HTTPS port"]
)
def test_a_server_that_answers_http_on_its_tls_port(body: bytes, network: Network) -> None:
    network.faults = [Fault(400, body=body)]
    error = failure(network.rest())
    assert type(error) is errors.ConnectionSettingsError
    assert "this port speaks TLS; write https:// instead of http://" in str(error)


def test_nothing_listens(network: Network) -> None:
    port = refusing_port()
    for schemes in (("http", "grpc"), ("https", "grpcs")):
        urls = [f"{scheme}://127.0.0.1:{port}" for scheme in schemes]
        same(urls, errors.ServerUnreachableError, f"port {port} refuses the connection: no server answers; start one")


def test_an_unknown_name(network: Network) -> None:
    text = "the name no-such-host.invalid is unknown; check its spelling and the network (DNS)"
    same(("http://no-such-host.invalid:1", "grpc://no-such-host.invalid:1"), errors.ServerUnreachableError, text)


def test_silence_is_a_timeout(network: Network) -> None:
    with silence() as port:
        same((f"http://127.0.0.1:{port}", f"grpc://127.0.0.1:{port}"), errors.ServerTimeoutError, "no answer within")
        same((f"https://127.0.0.1:{port}", f"grpcs://127.0.0.1:{port}"), errors.ServerTimeoutError, "no answer within")


@pytest.mark.parametrize("kind", ["plain", "secure"])
def test_the_port_of_the_other_protocol(kind: str, network: Network) -> None:
    settings = {"ca_file": network.ca} if kind == "secure" else {}
    s = "s" if kind == "secure" else ""
    rest, grpc = network.rest(kind), network.grpc(kind)
    error = failure(grpc.replace("grpc", "http"), **settings)
    assert type(error) is errors.ConnectionSettingsError
    assert f"this port speaks gRPC (HTTP/2), not REST (HTTP/1.1); write grpc{s}://, or use the REST port" in str(error)
    error = failure(rest.replace("http", "grpc"), **settings)
    assert type(error) is errors.ConnectionSettingsError
    assert f"this port speaks REST (HTTP/1.1), not gRPC (HTTP/2); write http{s}://, or use the gRPC port" in str(error)


def test_tls_to_a_plain_port_and_the_reverse(network: Network) -> None:
    for url in network.both():
        scheme = url.partition(":")[0]
        error = failure(url.replace("://", "s://"))
        assert type(error) is errors.ConnectionSettingsError
        assert f"this port speaks no TLS; write {scheme}:// instead of {scheme}s://" in str(error)
    for url in network.both("secure"):
        scheme = url.partition(":")[0].removesuffix("s")
        error = failure(url.replace("s://", "://"))
        assert type(error) is errors.ConnectionSettingsError
        assert f"this port speaks TLS; write {scheme}s:// instead of {scheme}://" in str(error)


def test_a_tls_port_that_waits_for_more_is_told_from_a_slow_server(network: Network) -> None:
    """A plain REST server that keeps a TLS greeting waiting, since it holds no end of a line."""

    def answer(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    def talk(connection: socket.socket) -> None:
        with connection:
            data = b""
            while b"\r\n\r\n" not in data:
                part = connection.recv(4096)
                if not part:
                    return
                data += part
            connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer, args=(listener,), daemon=True).start()
        error = failure(f"https://127.0.0.1:{listener.getsockname()[1]}", timeout=(0.3, 9.0))
    assert type(error) is errors.ConnectionSettingsError
    assert "this port speaks no TLS; write http:// instead of https://" in str(error)


def test_an_untrusted_certificate(network: Network, tmp_path: Path) -> None:
    same(network.both("secure"), errors.ConnectionSettingsError, "certificate is not trusted (self", "--ca-file")
    make_certificate(tmp_path / "other.pem", tmp_path / "key.pem")
    same(network.both("secure"), errors.ConnectionSettingsError, "is not trusted", ca_file=tmp_path / "other.pem")


def test_a_certificate_of_another_name(network: Network, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    other = Network(tmp_path / "cert.pem", tmp_path / "key.pem")
    make_certificate(other.ca, other.key, "DNS:elsewhere.example.org")
    server = rest_server(other, "secure", port)
    try:
        same(
            (f"https://localhost:{port}", f"grpcs://localhost:{port}"), errors.ConnectionSettingsError, "is not trusted"
        )
        error = failure(f"https://localhost:{port}", ca_file=other.ca)
        assert "'localhost'" in str(error)
        assert "use the name that is in it" in str(error)
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("variable", ["ca_file", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_certificate_authority_of_ones_own(variable: str, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"ca_file": network.ca} if variable == "ca_file" else {}
    if not settings:
        monkeypatch.setenv(variable, str(network.ca))
    for host in ("127.0.0.1", "localhost"):
        for url in network.both("secure"):
            with FaceClient(url.replace("127.0.0.1", host), **settings) as client:  # type: ignore[arg-type]
                assert client.versions() == {1: "AVAILABLE"}


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.endswith("6")])
def test_ipv6_addresses(kind: str, network: Network) -> None:
    for url in network.both(kind):
        with FaceClient(url, ca_file=network.ca if kind == "secure6" else None, signature="serving_bytes") as client:
            assert client.ready()
            assert client.predict([b"x"])["keypoints"].shape == (1, 15, 2)
            assert "[::1]" in client.connection.url
    port = refusing_port()
    same((f"http://[::1]:{port}", f"grpc://[::1]:{port}"), errors.ServerUnreachableError, "no server answers")


def test_a_dead_proxy(network: Network) -> None:
    for host, text in (
        (f"127.0.0.1:{refusing_port()}", "connection refused"),
        ("no-such.invalid:1", "name is unknown"),
    ):
        for kind in ("plain", "secure"):
            urls = [url.replace("127.0.0.1", "10.255.255.1") for url in network.both(kind)]
            texts = (f"the proxy http://{host} does not answer", text, "check --proxy")
            same(urls, errors.ServerUnreachableError, *texts, proxy=f"http://me:{SECRET}@{host}")


def test_a_dead_proxy_of_the_environment(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = f"http://me:{SECRET}@127.0.0.1:{refusing_port()}"
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, dead)
    urls = [url.replace("127.0.0.1", "10.255.255.1") for url in network.both()]
    same(urls, errors.ServerUnreachableError, "the proxy http://127.0.0.1:", "connection refused")
    monkeypatch.setenv("no_proxy", "10.255.255.1")
    for url in network.both():
        with FaceClient(url) as client:
            assert client.ready(), "proxies of the environment are not for this machine"


@pytest.mark.parametrize("kind", ["plain", "secure"])
def test_a_proxy_with_a_login(kind: str, network: Network) -> None:
    ca_file = network.ca if kind == "secure" else None
    with proxy(f"me:{SECRET}@") as (port, passed):
        for url in network.both(kind):
            before = len(passed)
            with FaceClient(url, ca_file=ca_file, proxy=f"http://me:{SECRET}%40@127.0.0.1:{port}") as client:
                assert client.ready()
            assert len(passed) > before
        wrong = f"http://me:wrong@127.0.0.1:{port}"
        same(network.both(kind), errors.AccessDeniedError, "wants a login", ca_file=ca_file, proxy=wrong)


def test_a_proxy_that_refuses(network: Network) -> None:
    for status, kind in ((403, errors.AccessDeniedError), (502, errors.ServerUnavailableError)):
        with proxy(refuse=status) as (port, _):
            same(
                network.both("secure"),
                kind,
                "the proxy http://127.0.0.1",
                proxy=f"127.0.0.1:{port}",
                ca_file=network.ca,
            )


def test_a_login_and_headers_are_sent_over_both(network: Network) -> None:
    for url in network.both():
        with FaceClient(url.replace("://", f"://me:{SECRET}@"), headers={"X-Team": "faces"}) as client:
            assert client.ready()
        sent = {name.lower(): value for name, value in network.headers[-1].items()}
        assert (sent["authorization"], sent["x-team"]) == ("Basic bWU6czNjcmV0", "faces")
        with FaceClient(url, headers={"Authorization": "Bearer x"}) as client:
            assert client.ready()
        assert {name.lower(): value for name, value in network.headers[-1].items()}["authorization"] == "Bearer x"


def test_no_fault_shows_a_secret(network: Network, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in messages, nor in tracebacks, nor in logs."""
    caplog.set_level(logging.DEBUG)
    login, header = f"me:{SECRET}@", {"X-Token": SECRET}
    dead = f"http://{login}127.0.0.1:{refusing_port()}"
    urls = [*network.both(), *network.both("secure"), f"http://127.0.0.1:{refusing_port()}", "http://no.invalid:1"]
    network.faults, network.lasting = [Fault(401, "no", "UNAUTHENTICATED")], True
    shown = []
    for url in urls:
        for settings in ({}, {"proxy": dead}):
            with FaceClient(
                url.replace("://", f"://{login}"),
                headers=header,
                retries=0,
                timeout=2,
                **settings,  # type: ignore[arg-type]
            ) as client:
                try:
                    client.status()
                except errors.ClientError as error:
                    shown.append("".join(traceback.format_exception(error)) + repr(error))
    assert len(shown) == 2 * len(urls)
    assert not [text for text in [*shown, caplog.text] if SECRET in text or "bWU6czNjcmV0" in text]


CALLS: dict[str, Callable[[FaceClient], object]] = {
    "status": FaceClient.status,
    "read_crops": lambda client: client.read_crops(CROP),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("transport", [0, 1], ids=["REST", "gRPC"])
def test_an_overloaded_server_is_asked_again(transport: int, call: str, network: Network) -> None:
    for fault in (Fault(429, "full", "RESOURCE_EXHAUSTED"), Fault(503, "full", "UNAVAILABLE")):
        network.headers.clear()
        network.faults = [fault] * 4  # more than the attempts without a connection
        with FaceClient(network.both()[transport], signature="serving_bytes", version=1, model="keypoints") as client:
            CALLS[call](client)
        assert len(network.headers) == 5


@pytest.mark.parametrize("transport", [0, 1], ids=["REST", "gRPC"])
def test_one_error_once_the_time_is_over(transport: int, network: Network) -> None:
    network.faults, network.lasting = [Fault(429, "full", "RESOURCE_EXHAUSTED")], True
    started = time.monotonic()
    with FaceClient(network.both()[transport], timeout=1.0) as client:
        with pytest.raises(errors.ServerUnavailableError, match="full; the server is overloaded"):
            client.status()
        assert 0.3 < time.monotonic() - started < 1.3
        assert len(network.headers) > 2
        network.headers.clear()
    with FaceClient(network.both()[transport], retries=1) as client, pytest.raises(errors.ServerUnavailableError):
        client.status()
    assert len(network.headers) == 2


@pytest.mark.parametrize("case", [case for case in SITUATIONS if case not in ("overloaded", "not ready")])
@pytest.mark.parametrize("transport", [0, 1], ids=["REST", "gRPC"])
def test_other_failures_are_not_repeated(transport: int, case: str, network: Network) -> None:
    network.faults, network.lasting = [SITUATIONS[case][0]], True
    with FaceClient(network.both()[transport]) as client, pytest.raises(errors.ClientError):
        client.status()
    assert len(network.headers) == 1


@pytest.mark.parametrize("transport", [0, 1], ids=["REST", "gRPC"])
def test_a_closed_client_says_so(transport: int, network: Network) -> None:
    client = FaceClient(network.both()[transport])
    assert client.ready()
    client.close()
    client.close()
    with pytest.raises(errors.ConfigError, match="the client is closed; create another one"):
        client.status()
