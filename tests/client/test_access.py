"""How a server is reached: certificates, headers, logins and proxies, in Python and on the command line."""

import pickle
from pathlib import Path

import pytest
from typer.testing import CliRunner

from emotion_ai.cli import app
from emotion_ai.client import FaceClient, ServerAddress
from emotion_ai.client.transport import Connection
from emotion_ai.errors import ConfigError
from tests.client.networks import Network, refusing_port

SECRET = "s3cret"


@pytest.mark.parametrize(
    ("url", "settings", "text"),
    [
        ("http://host:1", {"headers": {"Bad Name": "x"}}, "header 'Bad Name'"),
        ("http://host:1", {"headers": {"X": f"{SECRET}\r\nY: z"}}, "header X: the value must be printable ASCII"),
        ("http://host:1", {"headers": {"X": f"{SECRET}é"}}, "header X"),
        ("http://host:1", {"headers": {"content-length": "1"}}, "no name that can be given"),
        ("grpc://host:1", {"headers": {"key-bin": "x"}}, "no name that can be given"),
        ("http://host:1", {"headers": {"x": "1", "X": "2"}}, "a name is given twice"),
        (f"http://me:{SECRET}@host:1", {"headers": {"Authorization": "x"}}, "not both"),
        ("http://host:1", {"proxy": f"ftp://me:{SECRET}@proxy:1"}, "`proxy` must be http://HOST:PORT or https"),
        ("grpc://host:1", {"proxy": f"https://me:{SECRET}@proxy:1"}, "`proxy` must be http://HOST:PORT, got"),
        ("http://host:1", {"proxy": f"http://me:{SECRET}@proxy:port"}, "got 'http://proxy:port'"),
        ("http://host:1", {"proxy": f"http://me:{SECRET}/x@proxy:1"}, "got 'http://proxy:1'"),
        ("http://host:1", {"ca_file": "ca.pem"}, "`ca_file` is for https:// and grpcs:// addresses"),
        ("https://host:1", {"ca_file": "none.pem"}, "ca_file none.pem: cannot be read"),
        ("grpcs://host:1", {"ca_file": __file__}, "holds no certificates"),
        ("http://::1:8501", {}, r"http://\[::1\]:8501 \(an IPv6 address stands in brackets\)"),
        ("http://[::1]x:8501", {}, "write it as"),
        ("http://a b:8501", {}, "write it as"),
        ("http://a..b:8501", {}, "write it as"),
        (f"grpc://{'a' * 64}:8500", {}, "write it as"),
        ("http://host:8501/v1/models/face", {}, "write it as"),
        (f"http://me:{SECRET}@host:1/?q=1", {}, "write it as"),
        ("http://host:1", {"concurrency": 0}, "`concurrency` must be >= 1, got 0"),
    ],
)
def test_invalid_access_is_one_line_without_secrets(url: str, settings: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        FaceClient(url, **settings)  # type: ignore[arg-type]
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_wrong_file_of_the_environment_is_named(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "none.pem")
    for scheme in ("https", "grpcs"):
        with pytest.raises(ConfigError, match=f"{variable} none.pem: cannot be read"):
            FaceClient(f"{scheme}://localhost:1")
        FaceClient(f"{scheme[:-1]}://localhost:1").close()


def test_no_repr_shows_a_secret() -> None:
    address = ServerAddress(f"https://me:{SECRET}@host:1", None, {"X-Token": SECRET}, f"http://me:{SECRET}@proxy:1")
    assert str(address) == "https://host:1"
    client = FaceClient(address)
    for shown in (address, f"{address}", client.connection, client, client._transport):
        assert SECRET not in repr(shown)
        assert SECRET not in str(shown)
    packed = pickle.loads(pickle.dumps(client)).connection
    assert (packed.login, packed.headers, packed.proxy) == (("me", SECRET), {"X-Token": SECRET}, address.proxy)


def test_an_address_at_another_port_is_reached_the_same_way() -> None:
    address = ServerAddress("https://me:x@[::1]:8501", "ca.pem", {"a": "b"}, "http://proxy:1").at("grpcs", 8500)
    assert (address.url, address.ca_file) == ("grpcs://me:x@[::1]:8500", "ca.pem")
    assert (address.headers, address.proxy) == ({"a": "b"}, "http://proxy:1")
    assert ServerAddress("http://host").at("grpc", 8500).url == "grpc://host:8500"


@pytest.mark.parametrize(
    ("host", "local"),
    [
        *(("127.0.0.1", True), ("127.0.0.2", True), ("localhost", True), ("[::1]", True), ("[0:0:0:0:0:0:0:1]", True)),
        *(("10.0.0.1", False), ("localhost.example.org", False), ("[fe80::1%25eth0]", False)),
    ],
)
def test_this_machine(host: str, local: bool) -> None:
    assert Connection(f"http://{host}:8501").local is local


def test_every_command_with_a_server_takes_the_same_options() -> None:
    commands = ("versions", "promote", "rollback", "prune", "verify", "predict", "web", "canary")
    for command in commands:
        shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
        options = ("--server", "--ca-file", "--client-cert", "--client-key", "--header", "--proxy")
        assert all(option in shown for option in options), command


def test_options_reach_the_server(network: Network, tmp_path: Path) -> None:
    tokens = tmp_path / "headers"
    tokens.write_text(f"Authorization: Bearer {SECRET}\n\nX-Team: faces\n")
    for server in (network.rest("secure"), network.grpc("secure")):
        arguments = [
            "--server",
            server,
            "--ca-file",
            str(network.ca),
            "--header",
            f"@{tokens}",
            "--header",
            "X-Who: me",
        ]
        done = CliRunner().invoke(app, ["predict", str(network.photo), "--signature", "serving_bytes", *arguments])
        assert done.exit_code == 0, done.output
        sent = {name.lower(): value for name, value in network.headers[-1].items()}
        assert (sent["authorization"], sent["x-team"], sent["x-who"]) == (f"Bearer {SECRET}", "faces", "me")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--header", SECRET, "--server", "http://127.0.0.1:1"], "--header: write a header as 'NAME: VALUE'"),
        (["--header", "@none", "--server", "http://127.0.0.1:1"], "--header @none: cannot be read"),
        (["--header", "A: 1", "--header", "a: 2", "--server", "http://127.0.0.1:1"], "header a is given twice"),
        (["--header", "A: 1"], "give --server as well"),
        (["--proxy", f"me:{SECRET}@proxy:x", "--server", "http://127.0.0.1:1"], "`proxy` must be"),
        (["--ca-file", "x", "--server", "http://127.0.0.1:1"], "`ca_file` is for https"),
    ],
)
def test_wrong_options_are_one_line_without_secrets(arguments: list[str], text: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["predict", str(tmp_path), *arguments])
    assert isinstance(done.exception, ConfigError)
    assert text in str(done.exception)
    assert SECRET not in str(done.exception)


def test_the_command_line_shows_no_login_of_a_server(tmp_path: Path) -> None:
    url = f"http://me:{SECRET}@127.0.0.1:{refusing_port()}"
    for command in (["verify", str(tmp_path), "--server", url], ["promote", str(tmp_path), "1", "--server", url]):
        done = CliRunner().invoke(app, command)
        assert done.exit_code
        assert SECRET not in f"{done.output}{done.exception}"
