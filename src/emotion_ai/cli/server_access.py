"""The options of commands with --server: how to reach it, and which of its models to use."""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from emotion_ai.errors import ConfigError

Server = Annotated[
    str | None, typer.Option(help="Server, http:// (REST) or grpc://; by default the bundled PyTorch weights.")
]
Signature = Annotated[
    str | None,
    typer.Option(help="serving_bytes sends PNG, serving_default pixels; by default the fullest of the version."),
]
Version = Annotated[int | None, typer.Option(help="Version of the served model.")]
Label = Annotated[str | None, typer.Option(help="Label of the served model, e.g. stable.")]
Device = Annotated[
    str, typer.Option(help="Without --server: auto (a GPU if there is one), cpu, cuda, cuda:1, ... or mps.")
]
Precision = Annotated[
    str, typer.Option(help="Without --server: fp32, or bf16 or fp16, which a GPU computes faster and less exactly.")
]
UncertainBelow = Annotated[
    float | None,
    typer.Option(
        help="Confidence, 0 to 1, below which an emotion is reported as uncertain; by default the network's own "
        "threshold."
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(help="Seconds to wait for a server that is away; by default 120 once it has answered, before that 0."),
]

CaFile = Annotated[
    Path | None,
    typer.Option(
        help="PEM file with the certificates to trust; by default that of REQUESTS_CA_BUNDLE or SSL_CERT_FILE, or the "
        "usual authorities."
    ),
]
Header = Annotated[
    list[str] | None,
    typer.Option(
        help="Header of each request to the server, such as a token: 'NAME: VALUE', or @FILE with one a line."
    ),
]
Proxy = Annotated[
    str | None,
    typer.Option(
        help="Proxy to the server, http://HOST:PORT; by default that of HTTP_PROXY, HTTPS_PROXY and NO_PROXY."
    ),
]
Certificate = Annotated[
    Path | None, typer.Option(help="PEM file with the client's own certificate, for a server that demands one.")
]
Key = Annotated[Path | None, typer.Option(help="PEM file with its key, if --client-cert has none.")]
_OPTIONS: dict[str, Any] = {
    "ca_file": CaFile,
    "client_cert": Certificate,
    "client_key": Key,
    "header": Header,
    "proxy": Proxy,
}


def with_server_access(command: Callable[..., None]) -> Callable[..., None]:
    """The command with --ca-file, --client-cert, --header and so on; they are part of the addresses that it gets.

    Raises:
        ConfigError: one of them is invalid, or given without a server.
    """
    signature = inspect.signature(command)
    addresses = [name for name in ("server", "grpc") if name in signature.parameters]

    @wraps(command)
    def run(
        *,
        ca_file: Path | None,
        client_cert: Path | None,
        client_key: Path | None,
        header: list[str] | None,
        proxy: str | None,
        **arguments: Any,
    ) -> None:
        from emotion_ai.client.address import ClientCertificate, ServerAddress

        given = [name for name in addresses if arguments[name] is not None]
        if not given and (ca_file or client_cert or client_key or header or proxy):
            options = "--ca-file, --client-cert, --client-key, --header and --proxy"
            raise ConfigError(f"{options} are for a server; give --server as well")
        if client_key and not client_cert:
            raise ConfigError("--client-key is the key of a certificate; give --client-cert as well")
        own: ClientCertificate | None = (client_cert, client_key) if client_cert and client_key else client_cert
        headers = _headers(header or [])
        for name in given:
            url = arguments[name]
            secure = url.startswith(("https://", "grpcs://"))
            trusted, cert = (ca_file, own) if secure or len(given) == 1 else (None, None)
            arguments[name] = ServerAddress(url, trusted, headers, proxy, cert)
        command(**arguments)

    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [inspect.Parameter(name, keyword, default=None, annotation=kind) for name, kind in _OPTIONS.items()]
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added])  # type: ignore[attr-defined]
    run.__annotations__ = {**command.__annotations__, **_OPTIONS}
    return run


def _headers(options: list[str]) -> dict[str, str]:
    """Headers by name.

    Raises:
        ConfigError: one has no colon, or a file cannot be read; no message shows a value.
    """
    lines: list[tuple[str, str]] = []
    for option in options:
        if not option.startswith("@"):
            lines.append(("--header", option))
            continue
        path = Path(option[1:])
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise ConfigError(f"--header @{path}: cannot be read ({reason}); give a file with NAME: VALUE") from None
        lines += [(f"--header @{path}", line) for line in text.splitlines() if line.strip()]
    headers: dict[str, str] = {}
    for source, line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise ConfigError(f"{source}: write a header as 'NAME: VALUE'")
        if name.strip().lower() in (known.lower() for known in headers):
            raise ConfigError(f"{source}: the header {name.strip()} is given twice")
        headers[name.strip()] = value.strip()
    return headers
