import socket

import pytest

from emotion_ai.addresses import bind, host_port, without_brackets


def test_ipv6_addresses_are_in_brackets_in_urls_only() -> None:
    assert [host_port(host, 80) for host in ("::1", "127.0.0.1", "localhost")] == [
        "[::1]:80",
        "127.0.0.1:80",
        "localhost:80",
    ]
    assert [without_brackets(host) for host in ("[::1]", "::1", "localhost", "[")] == ["::1", "::1", "localhost", "["]


@pytest.mark.parametrize(("host", "others"), [("127.0.0.1", "::1"), ("::1", "127.0.0.1"), ("::", "127.0.0.1")])
def test_a_socket_takes_connections_to_its_address_alone(host: str, others: str) -> None:
    with bind(host, 0) as listener:
        listener.listen()
        port = listener.getsockname()[1]
        socket.create_connection(("::1" if host == "::" else host, port), timeout=5).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((others, port), timeout=5)


def test_addresses_that_cannot_be_used() -> None:
    with bind("::1", 0) as listener:
        listener.listen()
        with pytest.raises(OSError, match="in use"):
            bind("::1", listener.getsockname()[1])
    for host in ("no-such-host.invalid", "192.0.2.1", "[::1]"):
        with pytest.raises(OSError, match=r".+"):
            bind(host, 0)
    with pytest.raises(OverflowError):
        bind("127.0.0.1", 70000)
