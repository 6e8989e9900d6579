"""Work is timed beside a fixed workload, and without what other processes take."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from emotion_ai.benchmarks import interleaved
from emotion_ai.benchmarks.interleaved import Stage, measure, seconds_of


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Callable[[], None]]:
    """A function that makes work which takes seconds, of which it waits some for a processor."""
    now, waited, schedule = [0.0], [0.0], tmp_path / "schedstat"
    schedule.write_text("0 0 0")
    monkeypatch.setattr(interleaved, "_SCHEDULE", schedule)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def work(*seconds: float, waits: float = 0.0) -> Callable[[], None]:
        left = list(seconds)

        def take() -> None:
            now[0] += (left.pop(0) if len(left) > 1 else left[0]) + waits
            waited[0] += waits
            schedule.write_text(f"0 {round(1e9 * waited[0])} 0")

        return take

    return work


def test_waiting_for_a_processor_does_not_count(clock: Callable[..., Callable[[], None]]) -> None:
    assert seconds_of(clock(3.0, waits=5.0)) == pytest.approx(3.0)


def test_without_the_kernels_count_the_wall_clock_counts(
    clock: Callable[..., Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = clock(3.0, waits=5.0)
    monkeypatch.setattr(interleaved, "_SCHEDULE", Path("none"))
    assert seconds_of(work) == pytest.approx(8.0)


def test_sleep_counts_as_work_and_with_threads_only_processor_time_does() -> None:
    assert seconds_of(lambda: time.sleep(0.05)) > 0.04
    assert seconds_of(lambda: time.sleep(0.05), threads=True) < 0.04


def test_a_ratio_is_to_the_fixed_workload_before_and_after(clock: Callable[..., Callable[[], None]]) -> None:
    fixed = clock(9.0, 1.0, 3.0, 5.0)  # the first call is not timed
    rounds = measure(Stage("reading", clock(8.0, 4.0), fixed), 2)
    assert [each.seconds for each in rounds] == pytest.approx([4.0, 4.0])
    assert [each.ratio for each in rounds] == pytest.approx([2.0, 1.0])
