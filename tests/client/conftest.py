"""Servers that the tests of the client share."""

from collections.abc import Iterator

import pytest

from tests.client import networks


@pytest.fixture(scope="session")
def _servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[networks.Network]:
    if not networks.HAS_OPENSSL:
        pytest.skip("no openssl to make a certificate with")
    with networks.network(tmp_path_factory.mktemp("network")) as found:
        yield found


@pytest.fixture
def network(_servers: networks.Network, monkeypatch: pytest.MonkeyPatch) -> networks.Network:
    """Servers without faults, in an environment without proxies and certificates."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "grpc_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    _servers.headers.clear()
    _servers.faults, _servers.lasting = [], False
    return _servers
