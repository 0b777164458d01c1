"""The bounded past."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from memkit.memory.history import History
from memkit.memory.sample import Sample


def sample(time: float, used: int = 0) -> Sample:
    return Sample(
        time=time,
        limit=1000,
        available=1000 - used,
        binding="machine",
        rss=0,
        vms=0,
        machine_total=0,
        machine_available=0,
    )


def test_the_last_hour_is_kept_whole_and_the_day_by_the_minute() -> None:
    history = History()
    for second in range(0, 30 * 3600, 5):
        history.append(sample(float(second), used=second % 60))
    kept = history.recent()
    newest = kept[-1].time
    assert [s.time for s in history.recent(3600)] == [newest - 5.0 * i for i in range(720, -1, -1)]
    older = [s for s in kept if s.time < newest - 3600]
    assert 23 * 60 - 2 <= len(older) <= 23 * 60 + 2
    assert kept[0].time >= newest - 86400
    assert all(s.used == 55 for s in older[:-1]), "the worst of each minute"


def test_a_short_interval_does_not_grow_without_bound() -> None:
    history = History(most=100)
    for tick in range(5000):
        history.append(sample(tick * 0.01))
    assert len(history) <= 100 + 2


def test_recent_counts_from_the_newest_sample() -> None:
    history = History()
    assert history.recent(10) == ()
    for time in (0.0, 50.0, 55.0, 60.0):
        history.append(sample(time))
    assert [s.time for s in history.recent(10)] == [50.0, 55.0, 60.0]


def test_a_clock_set_back_loses_the_future_and_goes_on() -> None:
    history = History()
    for time in (100.0, 10_000.0, 20_000.0, 500.0, 505.0):
        history.append(sample(time))
    assert [s.time for s in history.recent()][-2:] == [500.0, 505.0]
    assert max(s.time for s in history.recent()) == 505.0


@given(st.lists(st.tuples(st.floats(0, 5000), st.integers(0, 1000)), max_size=60))
def test_order_and_bounds_hold_whatever_the_clock_does(readings: list[tuple[float, int]]) -> None:
    history = History(fine=300, coarse=1200, most=10)
    for time, used in readings:
        history.append(sample(time, used))
        kept = [s.time for s in history.recent()]
        assert kept == sorted(kept)
        assert kept[-1] == time
        assert kept[0] >= time - 1200
        assert len(history) <= 10 + 1200 / 60 + 1
