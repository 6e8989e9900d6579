"""How often one address may send a picture."""

import ipaddress
import time
from collections import deque
from dataclasses import dataclass, field


@dataclass
class RateLimit:
    """Counts events of each address over the last minute.

    Attributes:
        per_minute: events allowed from one address; an IPv6 network of /64 counts as one.
    """

    per_minute: int
    _seen: dict[str, deque[float]] = field(default_factory=dict)

    def exceeded(self, address: str) -> bool:
        """Whether this event is one too many; counts it otherwise."""
        now = time.monotonic()
        self._seen = {key: times for key, times in self._seen.items() if times[-1] > now - 60}
        times = self._seen.setdefault(network(address), deque())
        while times and times[0] <= now - 60:
            times.popleft()
        if len(times) >= self.per_minute:
            return True
        times.append(now)
        return False


def network(address: str) -> str:
    """What counts as one address: an IPv4 address, mapped or not, or an IPv6 network of /64."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, 64), strict=False))
