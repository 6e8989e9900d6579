"""Pictures in memory: a bounded store with one value per owner that expires."""

import threading
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class _Kept(NamedTuple):
    value: object
    size: int
    expires: float
    group: str


@dataclass
class Store(Generic[T]):
    """One value per owner, for a while; when it is full, the oldest value of the group with the most bytes gives way.

    So an address that sends a lot, the group of its values, displaces only its own.

    Nothing is written to disk, so a page that is killed leaves nothing behind.

    Attributes:
        max_bytes: of all values together.
        seconds: how long a value is kept.
    """

    max_bytes: int
    seconds: float
    _kept: OrderedDict[str, _Kept] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, owner: str, value: T, size: int, group: str = "") -> None:
        """Keeps a value of `size` bytes in place of the owner's last one."""
        with self._lock:
            self._kept.pop(owner, None)
            self._kept[owner] = _Kept(value, size, time.monotonic() + self.seconds, group)
            self._drop_expired()
            while self._bytes() > self.max_bytes:
                self._give_way()

    def get(self, owner: str) -> T | None:
        """The owner's value, unless it has expired or given way."""
        with self._lock:
            self._drop_expired()
            kept = self._kept.get(owner)
            return kept.value if kept else None  # type: ignore[return-value]

    def items(self) -> list[tuple[str, T]]:
        """The owners and their values, the oldest first."""
        with self._lock:
            self._drop_expired()
            return [(owner, kept.value) for owner, kept in self._kept.items()]  # type: ignore[misc]

    def drop(self, owner: str) -> None:
        """Forgets the owner's value."""
        with self._lock:
            self._kept.pop(owner, None)

    def drop_expired(self) -> None:
        """Forgets all values that were kept for long enough."""
        with self._lock:
            self._drop_expired()

    @property
    def total(self) -> int:
        """Bytes of all values."""
        with self._lock:
            return self._bytes()

    def _bytes(self) -> int:
        return sum(kept.size for kept in self._kept.values())

    def _give_way(self) -> None:
        sizes = Counter[str]()
        for kept in self._kept.values():
            sizes[kept.group] += kept.size
        largest = max(sizes, key=lambda group: sizes[group])
        del self._kept[next(owner for owner, kept in self._kept.items() if kept.group == largest)]

    def _drop_expired(self) -> None:
        now = time.monotonic()
        while self._kept and next(iter(self._kept.values())).expires <= now:  # the oldest comes first
            self._kept.popitem(last=False)
