"""Whom a client trusts over TLS: the same over REST and gRPC."""

import os
import ssl
from pathlib import Path

from requests.utils import DEFAULT_CA_BUNDLE_PATH

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


def trust_context(path: str | None) -> ssl.SSLContext:
    """A context of TLS that trusts the certificates in a file, or in a folder as OpenSSL's `rehash` makes it.

    Raises:
        OSError: the file cannot be read, or holds no certificates.
    """
    path = path or DEFAULT_CA_BUNDLE_PATH
    folder = os.path.isdir(path)
    return ssl.create_default_context(cafile=None if folder else path, capath=path if folder else None)


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
