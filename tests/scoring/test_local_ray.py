"""Ray for one run: how it starts and ends."""

import os
import signal
import sys
from typing import Any

import pytest

from emotion_ai.scoring.local_ray import running_ray


class FakeRay:
    """Gets a signal in the middle of its start."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def is_initialized(self) -> bool:
        return False

    def init(self, **_: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        self.done.append("started")

    def shutdown(self) -> None:
        self.done.append("ended")


def test_a_signal_waits_until_ray_has_started_and_can_be_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    ray, before = FakeRay(), signal.getsignal(signal.SIGINT)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(os, "environ", dict(os.environ))  # Ray's settings stay out of other tests
    with pytest.raises(KeyboardInterrupt), running_ray(None, 1):
        pass
    assert ray.done == ["started", "ended"]
    assert signal.getsignal(signal.SIGINT) is before
