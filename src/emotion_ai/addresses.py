"""Addresses to listen on, IPv4 and IPv6."""

import socket


def host_port(host: str, port: int) -> str:
    """HOST:PORT as in a URL, where an IPv6 address is in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def without_brackets(host: str) -> str:
    """A host that may be written as in a URL: `[::1]` is `::1`."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def bind(host: str, port: int) -> socket.socket:
    """A TCP socket that does not listen yet; port 0 picks a free one.

    Raises:
        OSError, OverflowError: the address cannot be used.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
    # with the protocol given, asyncio disables Nagle's algorithm, which would delay each response by 40 ms
    opened = socket.socket(family, kind, protocol)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # "::" is every IPv6 address, and no other
        opened.bind((address[0], port, *address[2:]))
    except BaseException:
        opened.close()
        raise
    return opened
