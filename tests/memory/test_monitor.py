"""The thread that samples, and those it tells."""

from __future__ import annotations

import gc
import logging
import os
import threading
import weakref
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from memkit.errors import ConfigError, ReadingError
from memkit.memory.monitor import Monitor
from memkit.memory.sample import Sample
from memkit.memory.subscribers import Notice
from tests.fakes import Clock
from tests.memory.test_history import sample

_LONG = 5.0  # seconds after which something that should happen at once has failed


class FakeReader:
    """Gives the share that a test sets, or raises what it sets; counts how often it was asked."""

    def __init__(self, share: float = 0.1) -> None:
        self.share, self.error, self.count = share, None, 0
        self.asked = threading.Semaphore(0)
        self.error: BaseException | None = None

    def __call__(self) -> Sample:
        self.count += 1
        self.asked.release()
        if self.error is not None:
            raise self.error
        return sample(float(self.count), used=round(self.share * 1000))


@pytest.fixture
def reader() -> FakeReader:
    return FakeReader()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def monitor(reader: FakeReader, clock: Clock) -> Iterator[Monitor]:
    monitor = Monitor(reader, clock=clock)
    yield monitor
    monitor.stop()


# -- readings without a thread ---------------------------------------------------------------------------------------


def test_a_sample_can_be_taken_without_a_thread(monitor: Monitor) -> None:
    taken = monitor.sample_now()
    assert monitor.latest is taken
    assert monitor.history.recent() == (taken,)
    assert not monitor.running


def test_level_subscribers_hear_changes_only_with_both_levels(monitor: Monitor, reader: FakeReader) -> None:
    told: list[tuple[str, str]] = []
    monitor.subscribe(lambda notice: told.append((notice.previous, notice.level)))
    for share in (0.5, 0.8, 0.8, 0.72, 0.95, 0.2):
        reader.share = share
        monitor.sample_now()
    assert told == [("normal", "warning"), ("warning", "emergency"), ("emergency", "normal")]


def test_sample_subscribers_hear_every_reading(monitor: Monitor) -> None:
    told: list[Notice] = []
    monitor.subscribe(told.append, on="sample")
    first, second = monitor.sample_now(), monitor.sample_now()
    assert [notice.sample for notice in told] == [first, second]


def test_an_unsubscribed_one_hears_nothing_more_and_leaving_twice_is_harmless(monitor: Monitor) -> None:
    told: list[Notice] = []
    leave = monitor.subscribe(told.append, on="sample")
    monitor.subscribe(told.append, on="sample")
    monitor.sample_now()
    leave()
    leave()
    monitor.sample_now()
    assert len(told) == 3


def test_one_that_is_unsubscribed_by_an_earlier_one_is_not_called(monitor: Monitor) -> None:
    told: list[Notice] = []
    leaving = []
    monitor.subscribe(lambda notice: leaving[0](), on="sample")
    leaving.append(monitor.subscribe(told.append, on="sample"))
    monitor.sample_now()
    assert told == []


def test_a_failed_reading_is_an_error_state_until_the_next_good_one(monitor: Monitor, reader: FakeReader) -> None:
    """Never 0 %: the last good sample and its level stay."""
    told: list[Notice] = []
    monitor.subscribe(told.append, on="sample")
    reader.share = 0.8
    good = monitor.sample_now()
    reader.error = ReadingError("meminfo is gone")
    with pytest.raises(ReadingError, match="meminfo is gone"):
        monitor.sample_now()
    assert (monitor.latest, monitor.level) == (good, "warning")
    assert str(monitor.last_error) == "meminfo is gone"
    assert told[-1].error is monitor.last_error
    assert len(monitor.history) == 1
    reader.error = None
    monitor.sample_now()
    assert monitor.last_error is None
    assert told[-1].error is None


def test_a_reader_that_fails_in_any_other_way_is_a_failed_reading_too(monitor: Monitor, reader: FakeReader) -> None:
    reader.error = ZeroDivisionError("oops")
    with pytest.raises(ReadingError, match="oops"):
        monitor.sample_now()


def test_a_kept_error_holds_no_frames(monitor: Monitor, reader: FakeReader) -> None:
    """A traceback would keep alive whatever the failing frames held."""
    reader.error = ReadingError("no")
    with pytest.raises(ReadingError):
        monitor.sample_now()
    assert monitor.last_error is not None
    assert monitor.last_error.__traceback__ is None


def test_a_repeated_failure_is_logged_once(
    monitor: Monitor, reader: FakeReader, caplog: pytest.LogCaptureFixture
) -> None:
    reader.error = ReadingError("no")
    for _ in range(3):
        with pytest.raises(ReadingError):
            monitor.sample_now()
    assert len(caplog.records) == 1


# -- subscribers that misbehave --------------------------------------------------------------------------------------


def test_one_that_raises_is_reported_and_the_others_still_run(
    monitor: Monitor, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Notice] = []

    def broken(notice: Notice) -> None:
        raise KeyError("broken subscriber")

    monitor.subscribe(broken, on="sample")
    monitor.subscribe(told.append, on="sample")
    with caplog.at_level(logging.ERROR):
        monitor.sample_now()
        monitor.sample_now()
    assert len(told) == 2
    assert [("broken" in error.subscriber, "KeyError" in error.text) for error in monitor.errors] == [(True, True)] * 2
    assert len(caplog.records) == 1, "the same failure again is kept but not logged again"


def test_what_a_failed_subscriber_held_is_not_kept_alive(monitor: Monitor, caplog: pytest.LogCaptureFixture) -> None:
    class Big:
        pass

    seen: list[weakref.ref[Big]] = []

    def broken(notice: Notice) -> None:
        big = Big()
        seen.append(weakref.ref(big))
        raise ValueError

    monitor.subscribe(broken, on="sample")
    monitor.sample_now()
    gc.collect()
    assert len(caplog.records) == 1
    assert seen[0]() is None


def test_a_subscriber_that_samples_gets_no_endless_loop_but_the_change_of_level(
    monitor: Monitor, reader: FakeReader
) -> None:
    """A reclaimer measures again after each release; the fall of the level must be told, after it returned."""
    events: list[str] = []

    def reclaim(notice: Notice) -> None:
        events.append(f"{notice.level} begins")
        reader.share = 0.2
        monitor.sample_now()
        events.append(f"{notice.level} ends")

    monitor.subscribe(reclaim)
    monitor.subscribe(lambda notice: monitor.sample_now(), on="sample")
    reader.share = 0.8
    monitor.sample_now()
    assert events == ["warning begins", "warning ends", "normal begins", "normal ends"]


def test_an_interrupt_in_a_subscriber_reaches_the_user_and_the_next_notices_are_delivered(monitor: Monitor) -> None:
    told: list[Notice] = []

    def interrupted(notice: Notice) -> None:
        raise KeyboardInterrupt

    leave = monitor.subscribe(interrupted, on="sample")
    monitor.subscribe(told.append, on="sample")
    with pytest.raises(KeyboardInterrupt):
        monitor.sample_now()
    leave()
    monitor.sample_now()
    assert len(told) == 1


def test_while_one_thread_delivers_another_only_leaves_its_notice(monitor: Monitor, reader: FakeReader) -> None:
    """Callbacks never run twice at once, and nobody waits for a slow one."""
    inside, go_on = threading.Event(), threading.Event()
    told: list[tuple[int, int]] = []

    def slow(notice: Notice) -> None:
        told.append((threading.get_ident(), reader.count))
        inside.set()
        assert go_on.wait(_LONG)

    monitor.subscribe(slow, on="sample")
    other = threading.Thread(target=monitor.sample_now)
    other.start()
    assert inside.wait(_LONG)
    monitor.sample_now()
    assert len(told) == 1
    go_on.set()
    other.join(_LONG)
    assert [thread for thread, _ in told] == [other.ident] * 2


# -- one waking of the thread ----------------------------------------------------------------------------------------


def test_it_samples_when_the_interval_has_passed_and_not_before(
    monitor: Monitor, reader: FakeReader, clock: Clock
) -> None:
    assert monitor._turn() == 5.0
    clock.advance(3)
    assert monitor._turn() == 2.0
    assert reader.count == 1
    clock.advance(2)
    assert monitor._turn() == 5.0
    assert reader.count == 2


def test_after_a_suspended_night_there_is_one_sample(monitor: Monitor, reader: FakeReader, clock: Clock) -> None:
    monitor._turn()
    clock.advance(8 * 3600)
    waits = [monitor._turn() for _ in range(5)]
    assert reader.count == 2
    assert waits == [5.0] * 5


def test_a_clock_that_jumps_back_does_not_stop_the_sampling(monitor: Monitor, reader: FakeReader, clock: Clock) -> None:
    monitor._turn()
    clock.advance(-3600)
    assert monitor._turn() == 5.0
    assert reader.count == 2


def test_a_changed_interval_counts_from_the_last_sample(monitor: Monitor, clock: Clock) -> None:
    monitor._turn()
    clock.advance(1)
    monitor.interval = 30
    assert monitor._turn() == 29.0
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="interval"):
            monitor.interval = wrong


def test_it_wakes_for_an_expiry_that_comes_before_the_next_sample(reader: FakeReader, clock: Clock) -> None:
    ticks: list[Notice] = []
    due: list[float | None] = [1.5]
    monitor = Monitor(reader, clock=clock, wake_in=lambda: due[0])
    monitor.subscribe(ticks.append, on="tick")
    assert monitor._turn() == 1.5
    clock.advance(1.5)
    due[0] = None
    assert monitor._turn() == 3.5
    assert (reader.count, len(ticks)) == (1, 2)


def test_something_that_stays_overdue_is_tried_ever_more_rarely(reader: FakeReader, clock: Clock) -> None:
    """Pinned at its deadline, say: no spinning, and normal service once it is settled."""
    due: list[float] = [0.0]
    monitor = Monitor(reader, clock=clock, wake_in=lambda: due[0])
    waits = [monitor._turn() for _ in range(10)]
    assert waits[:3] == [0.05, 0.1, 0.2]
    assert waits[-1] == 5.0
    due[0] = 1.0
    monitor._turn()
    due[0] = -3.0
    assert monitor._turn() == 0.05


def test_a_wake_in_that_raises_is_recorded_and_sampling_goes_on(
    reader: FakeReader, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    monitor = Monitor(reader, clock=clock, wake_in=lambda: 1 // 0)
    assert [monitor._turn(), monitor._turn()] == [5.0, 5.0]
    assert "ZeroDivisionError" in monitor.errors[0].text
    assert len(caplog.records) == 1


# -- the thread ------------------------------------------------------------------------------------------------------


def monitor_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "memkit-monitor"]


def test_starting_and_stopping_twice_is_harmless_and_there_is_one_thread_ever(
    monitor: Monitor, reader: FakeReader
) -> None:
    monitor.stop()
    monitor.start()
    monitor.start()
    assert reader.asked.acquire(timeout=_LONG)
    assert len(monitor_threads()) == 1
    assert monitor.running
    assert monitor_threads()[0].daemon
    monitor.stop()
    monitor.stop()
    assert monitor_threads() == []
    assert not monitor.running


def test_it_can_be_started_again(monitor: Monitor, reader: FakeReader, clock: Clock) -> None:
    for _ in range(3):
        monitor.start()
        assert reader.asked.acquire(timeout=_LONG)
        monitor.stop()
        clock.advance(5)
    assert reader.count == 3


def test_nudging_wakes_it_at_once(monitor: Monitor, reader: FakeReader, clock: Clock) -> None:
    ticked = threading.Semaphore(0)
    monitor.subscribe(lambda notice: ticked.release(), on="tick")
    monitor.start()
    assert ticked.acquire(timeout=_LONG)
    monitor.nudge()
    assert ticked.acquire(timeout=_LONG)
    assert reader.count == 1
    clock.advance(6)
    monitor.nudge()
    assert ticked.acquire(timeout=_LONG)
    assert reader.count == 2


def test_the_thread_survives_failing_readings_and_subscribers(
    monitor: Monitor, reader: FakeReader, clock: Clock
) -> None:
    reader.error = OSError("too many open files")
    monitor.subscribe(lambda notice: 1 // 0, on="tick")
    monitor.start()
    for _ in range(3):
        assert reader.asked.acquire(timeout=_LONG)
        clock.advance(6)
        monitor.nudge()
    assert monitor.running


def test_stopping_from_a_subscriber_in_the_thread_itself_does_not_deadlock(monitor: Monitor) -> None:
    threads: list[threading.Thread] = []
    stopped = threading.Event()

    def stop(notice: Notice) -> None:
        threads.append(threading.current_thread())
        monitor.stop()
        stopped.set()

    monitor.subscribe(stop, on="tick")
    monitor.start()
    assert stopped.wait(_LONG)
    threads[0].join(_LONG)
    assert monitor_threads() == []


def test_stopping_while_a_subscriber_is_busy_returns_and_starting_again_keeps_one_thread(
    monitor: Monitor, reader: FakeReader, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memkit.memory.monitor._PATIENCE", 0.01)
    inside, go_on = threading.Event(), threading.Event()

    def busy(notice: Notice) -> None:
        inside.set()
        assert go_on.wait(_LONG)

    leave = monitor.subscribe(busy, on="tick")
    monitor.start()
    assert inside.wait(_LONG)
    monitor.stop()
    assert not monitor.running
    monitor.start()
    assert len(monitor_threads()) == 1
    leave()
    go_on.set()
    assert reader.asked.acquire(timeout=_LONG)
    clock.advance(6)
    monitor.nudge()
    assert reader.asked.acquire(timeout=_LONG), "the thread that was leaving stayed"


def test_stopping_from_a_subscriber_that_the_user_called_does_not_deadlock(
    monitor: Monitor, reader: FakeReader
) -> None:
    monitor.start()
    assert reader.asked.acquire(timeout=_LONG)
    monitor.subscribe(lambda notice: monitor.stop(), on="sample")
    monitor.sample_now()
    assert monitor_threads() == []


def test_a_finalizer_may_nudge_and_sample_in_the_midst_of_either(monitor: Monitor) -> None:
    """Finalizers run wherever an allocation happens, also inside the monitor's own locks."""
    with monitor._lock, monitor._reading:
        monitor.nudge()
        monitor.sample_now()
        monitor.subscribe(lambda notice: None)()


def test_own_cost_grows_with_readings(reader: FakeReader, clock: Clock) -> None:
    def costly() -> Sample:
        sum(range(200_000))
        return reader()

    monitor = Monitor(costly, clock=clock)
    monitor.sample_now()
    outside = monitor.own_cpu_seconds
    monitor._turn()
    assert outside > 0
    assert monitor.own_cpu_seconds > outside


# -- fork ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_forked_during_a_reading_can_sample_and_start_anew(clock: Clock) -> None:
    """The thread that held the locks does not exist in the child."""
    inside, go_on = threading.Event(), threading.Event()
    parent = os.getpid()

    def slow() -> Sample:
        if os.getpid() == parent:
            inside.set()
            assert go_on.wait(_LONG)
        return sample(1.0)

    monitor = Monitor(slow, clock=clock)
    monitor.start()
    assert inside.wait(_LONG)
    child = os.fork()
    if child == 0:  # only flags leave this branch; nothing may run pytest's code in the child
        watchdog = threading.Timer(_LONG, os._exit, [9])
        watchdog.daemon = True
        watchdog.start()
        ok = not monitor.running and monitor.sample_now().time == 1.0
        told = threading.Event()
        monitor.subscribe(lambda notice: told.set(), on="tick")
        monitor.start()
        ok = ok and monitor.running and told.wait(_LONG / 2)
        monitor.stop()
        os._exit(0 if ok and not monitor.running else 1)
    go_on.set()
    _, status = os.waitpid(child, 0)
    monitor.stop()
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_forked_by_a_callback_in_the_thread_leaves_the_loop(reader: FakeReader, clock: Clock) -> None:
    """In the child the monitor's thread is the only one: it must not go on sampling there."""
    result = SimpleNamespace(code=None)
    done = threading.Event()
    monitor = Monitor(reader, clock=clock)

    def fork(notice: Notice) -> None:
        child = os.fork()
        if child == 0:
            os._exit(0 if monitor._leave() and not monitor.running else 1)
        result.code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        done.set()

    leave = monitor.subscribe(fork, on="tick")
    monitor.start()
    assert done.wait(_LONG)
    leave()
    monitor.stop()
    assert result.code == 0
