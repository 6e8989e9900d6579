"""Servers that demand a certificate of the client, over REST and gRPC."""

import shutil
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from emotion_ai.cli import app
from emotion_ai.client import FaceClient, ServerAddress
from emotion_ai.errors import ConfigError, ConnectionSettingsError, ServerUnreachableError
from tests.client.networks import HAS_OPENSSL, Fault, Network, make_certificate, network, proxy, server_tls, talking


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A client's certificate and its key."""
    if not HAS_OPENSSL:
        pytest.skip("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("client")
    make_certificate(folder / "client.pem", folder / "client.key")
    return folder / "client.pem", folder / "client.key"


@pytest.fixture(scope="module")
def demanding(own: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with network(tmp_path_factory.mktemp("network"), ("secure",), clients=own[0]) as found:
        yield found


@pytest.mark.parametrize("transport", [0, 1], ids=["REST", "gRPC"])
def test_a_client_certificate_is_sent(
    transport: int, demanding: Network, own: tuple[Path, Path], tmp_path: Path
) -> None:
    url, both = demanding.both("secure")[transport], tmp_path / "both.pem"
    both.write_bytes(own[0].read_bytes() + own[1].read_bytes())
    for cert in (own, both, str(both)):
        with FaceClient(url, ca_file=demanding.ca, cert=cert, retries=0) as client:
            assert client.versions() == {1: "AVAILABLE"}


@pytest.mark.parametrize("transport", [0, 1], ids=["REST", "gRPC"])
def test_a_server_that_wants_another_certificate_says_so(transport: int, demanding: Network, tmp_path: Path) -> None:
    url, other = demanding.both("secure")[transport], (tmp_path / "other.pem", tmp_path / "other.key")
    make_certificate(*other)
    for cert in (None, other):
        client = FaceClient(url, ca_file=demanding.ca, cert=cert, retries=0)
        for _ in range(3):  # whatever breaks first
            with pytest.raises(ConnectionSettingsError, match="wants a certificate of the client, or another one .*=$"):
                client.predict([b"x" * 2**20] * 8, "serving_bytes")
        client.close()


@pytest.mark.parametrize("transport", ["https", "grpcs"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_any_version_of_tls_says_so(transport: str, version: ssl.TLSVersion, demanding: Network) -> None:
    """TLS 1.2 has only "handshake failure" for that."""
    tls = server_tls(demanding)
    tls.minimum_version = tls.maximum_version = version
    with talking(lambda stream: None, tls) as port:
        client = FaceClient(f"{transport}://127.0.0.1:{port}", ca_file=demanding.ca, retries=0)
        with client, pytest.raises(ConnectionSettingsError, match="wants a certificate of the client, or another one"):
            client.versions()


@pytest.mark.parametrize("transport", ["https", "grpcs"])
def test_a_server_that_closes_after_the_handshake_wants_none(transport: str, demanding: Network) -> None:
    tls = server_tls(replace(demanding, clients=None))
    with talking(lambda stream: None, tls) as port:
        client = FaceClient(f"{transport}://127.0.0.1:{port}", ca_file=demanding.ca, retries=0)
        with client, pytest.raises(ServerUnreachableError, match="the connection broke before the response") as error:
            client.versions()
    assert "certificate" not in str(error.value)


@pytest.mark.parametrize("transport", [0, 1], ids=["REST", "gRPC"])
def test_behind_a_forward_proxy_it_says_so(transport: int, demanding: Network) -> None:
    with proxy("me:s3cret") as (port, _):
        access = {"ca_file": demanding.ca, "proxy": f"http://me:s3cret@127.0.0.1:{port}", "retries": 0}
        client = FaceClient(demanding.both("secure")[transport], **access)  # type: ignore[arg-type]
        with client, pytest.raises(ConnectionSettingsError, match="wants a certificate of the client, or another one"):
            client.predict([b"x"], "serving_bytes")
        scheme = ("https", "grpcs")[transport]

        def serve(stream: socket.socket) -> None:
            stream.recv(2**16)  # a connection that is closed with bytes unread is reset, and the response may be lost
            stream.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        with talking(serve) as plain:
            client = FaceClient(f"{scheme}://127.0.0.1:{plain}", **access)  # type: ignore[arg-type]
            with client, pytest.raises(ConnectionSettingsError, match="this port speaks (no TLS|REST)"):
                client.versions()


@pytest.mark.parametrize("text", ["No required SSL certificate was sent", "The SSL certificate error"])
def test_a_proxy_that_wants_one_says_so(text: str, demanding: Network, own: tuple[Path, Path]) -> None:
    """As nginx, with a page."""
    demanding.faults = [Fault(400, body=f"<html><center>{text}</center></html>".encode())]
    client = FaceClient(demanding.rest("secure"), ca_file=demanding.ca, cert=own, retries=0)
    with client, pytest.raises(ConnectionSettingsError, match="wants a certificate of the client, or another one"):
        client.versions()


@pytest.mark.parametrize("transport", [0, 1], ids=["REST", "gRPC"])
def test_the_command_line_gives_it(transport: int, demanding: Network, own: tuple[Path, Path]) -> None:
    server = ["--server", demanding.both("secure")[transport], "--ca-file", str(demanding.ca)]
    given = ["--client-cert", str(own[0]), "--client-key", str(own[1])]
    command = ["predict", str(demanding.photo), "--signature", "serving_bytes", *server]
    done = CliRunner().invoke(app, [*command, *given])
    assert done.exit_code == 0, done.output
    assert CliRunner().invoke(app, command).exit_code == 2
    done = CliRunner().invoke(app, [*command, "--client-key", str(own[1])])
    assert "--client-key is the key of a certificate; give --client-cert as well" in str(done.exception)


def test_a_certificate_that_cannot_be_used_is_one_line(own: tuple[Path, Path], tmp_path: Path) -> None:
    make_certificate(tmp_path / "other.pem", tmp_path / "other.key")
    (tmp_path / "text").write_text("no certificate")
    wrong: list[tuple[object, str]] = [
        (tmp_path / "none.pem", r"client certificate .*none.pem: cannot be read \(No such file"),
        (own[0], "client certificate .*client.pem: not usable"),  # without its key
        ((own[0], tmp_path / "other.key"), "client.pem and .*other.key: not usable .*MISMATCH"),
        (tmp_path / "text", "text: not usable"),
        ((own[0],), "`cert` must be a file, or a pair"),
    ]
    for scheme in ("https", "grpcs"):
        for cert, text in wrong:
            with pytest.raises(ConfigError, match=text):
                FaceClient(f"{scheme}://localhost:1", cert=cert)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="`cert` is for https:// and grpcs:// addresses"):
        FaceClient("http://localhost:1", cert=own)
    assert ServerAddress("https://host:1", cert=own).at("grpcs", 2).cert == own
    assert ServerAddress("https://host:1", cert=own).at("grpc", 2).cert is None


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
def test_a_key_with_a_password_is_not_asked_for_it(own: tuple[Path, Path], tmp_path: Path) -> None:
    import subprocess

    locked = tmp_path / "locked.key"
    command = ["openssl", "ec", "-in", str(own[1]), "-aes256", "-passout", "pass:secret", "-out", str(locked)]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(ConfigError, match="locked.key: not usable .*without a password"):
        FaceClient("https://localhost:1", cert=(own[0], locked))
