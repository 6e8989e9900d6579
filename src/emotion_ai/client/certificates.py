"""Whom a client trusts over TLS, and its own certificate: the same over REST and gRPC."""

import os
import ssl
from pathlib import Path

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from emotion_ai.client.address import ClientCertificate
from emotion_ai.errors import ConfigError

VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
"""Environment variables that name a file of certificates; the first that is set counts."""


def trusted_file(ca_file: str | os.PathLike[str] | None) -> str | None:
    """Path of the certificates to trust: the given one, or the environment's; None for the usual authorities.

    Raises:
        ConfigError: it cannot be read, or holds no certificates.
    """
    found = next(((name, os.environ[name]) for name in VARIABLES if os.environ.get(name)), ("", None))
    source, path = ("ca_file", os.fspath(ca_file)) if ca_file is not None else found
    if path is not None:
        try:
            trust_context(path)
        except ssl.SSLError as error:
            raise ConfigError(f"{source} {path}: holds no certificates; give a PEM file") from error
        except OSError as error:
            raise ConfigError(f"{source} {path}: cannot be read ({error.strerror}); give a PEM file") from error
    return path


def own_files(cert: ClientCertificate | None) -> tuple[str, str] | None:
    """Paths of a client's own certificate and of its key; they may be the same file.

    Raises:
        ConfigError: one cannot be read, or they do not fit each other.
    """
    if cert is None:
        return None
    pair = cert if isinstance(cert, tuple) else (cert, cert)
    if len(pair) != 2:
        raise ConfigError(f"`cert` must be a file, or a pair of certificate and key, got {len(pair)} values")
    files = (os.fspath(pair[0]), os.fspath(pair[1]))
    for file in files:
        try:
            Path(file).read_bytes()
        except OSError as error:
            reason = error.strerror
            raise ConfigError(f"client certificate {file}: cannot be read ({reason}); give a PEM file") from error
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(*files, password="")
    except (OSError, ValueError) as error:
        names = " and ".join(dict.fromkeys(files))
        advice = "give the certificate and its key as PEM, without a password"
        raise ConfigError(f"client certificate {names}: not usable ({_reason(error)}); {advice}") from error
    return files


def _reason(error: Exception) -> str:
    return (error.reason if isinstance(error, ssl.SSLError) else None) or str(error)


def trust_context(path: str | None, own: tuple[str, str] | None = None) -> ssl.SSLContext:
    """A context of TLS that trusts the certificates in a file, or in a folder as OpenSSL's `rehash` makes it.

    Args:
        path: the file or folder; None for the usual authorities.
        own: the client's own certificate and its key.

    Raises:
        OSError: the file cannot be read, or holds no certificates.
    """
    path = path or DEFAULT_CA_BUNDLE_PATH
    folder = os.path.isdir(path)
    context = ssl.create_default_context(cafile=None if folder else path, capath=path if folder else None)
    if own:
        context.load_cert_chain(*own)
    return context


def trusted_certificates(path: str | None) -> bytes | None:
    """The certificates in a file or folder as PEM; None without one.

    Raises:
        ConfigError: the folder has none.
    """
    if path is None:
        return None
    if not os.path.isdir(path):
        return Path(path).read_bytes()
    files = [file.read_bytes() for file in sorted(Path(path).iterdir()) if file.is_file()]
    certificates = b"\n".join(content for content in files if b"BEGIN CERTIFICATE" in content)
    if not certificates:
        raise ConfigError(f"{path}: no certificates in this folder; give a PEM file")
    return certificates
