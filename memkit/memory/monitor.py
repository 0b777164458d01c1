"""A thread that takes samples, keeps their history and tells subscribers."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import queue
import threading
import time
import traceback
import weakref
from typing import TYPE_CHECKING

from memkit.errors import ConfigError, ReadingError
from memkit.memory.history import History
from memkit.memory.pressure import Level, Thresholds, next_level
from memkit.memory.subscribers import Failure, Notice, Subscribers, Topic

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterator

    from memkit.memory.sample import Sample

_log = logging.getLogger(__name__)
_PATIENCE = 1.0  # seconds that `stop` waits for a reading or a subscriber that is under way
_SHORTEST_WAIT = 0.05  # seconds, when something stays due although subscribers were told


class Monitor:
    """Samples every `interval` seconds in one daemon thread, once started; any thread may use it.

    `wake_in` gives the seconds until something else is due (None: nothing is); the thread then wakes earlier and tells
    the subscribers of "tick". A failed reading leaves `latest` and `level` as they are and sets `last_error`. A forked
    child has no thread until it calls `start`.
    """

    _thread: threading.Thread | None

    def __init__(
        self,
        read: Callable[[], Sample],
        thresholds: Thresholds | None = None,
        interval: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        wake_in: Callable[[], float | None] | None = None,
        history: History | None = None,
    ) -> None:
        self.thresholds = thresholds or Thresholds()
        self.history = history or History()
        self.level: Level = "normal"
        self.latest: Sample | None = None
        self.last_error: ReadingError | None = None
        self.own_cpu_seconds = 0.0
        self._read, self._clock, self._wake_in = read, clock, wake_in
        self._interval = _checked(interval)
        self._last: float | None = None
        self._overdue, self._wake_error = 0, ""
        self._subscribers = Subscribers()
        self._renew()
        _monitors.add(self)

    # -- the thread ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to sample; does nothing where it runs already."""
        with self._lock:
            self._stopping = False
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=self._run, name="memkit-monitor", daemon=True)
                thread.start()
                self._thread = thread

    def stop(self) -> None:
        """End the thread; does nothing where none runs.

        Returns at once; only a reading or subscriber under way in the thread is waited for, one second at most,
        and the thread ends right after it.
        """
        with self._lock:
            self._stopping, thread = True, self._thread
        self.nudge()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_PATIENCE)  # outside the lock, which the thread needs in order to leave

    @property
    def running(self) -> bool:
        """Whether the thread samples."""
        thread = self._thread
        return thread is not None and thread.is_alive() and not self._stopping

    def nudge(self) -> None:
        """Make the thread wake now, tell "tick" and ask anew when to wake; may be called from a finalizer or signal."""
        self._wake.put(None)

    @property
    def interval(self) -> float:
        """Seconds between samples; raises ConfigError when set to anything but a positive number."""
        return self._interval

    @interval.setter
    def interval(self, seconds: float) -> None:
        self._interval = _checked(seconds)
        self.nudge()

    # -- readings -----------------------------------------------------------------------------------------------

    def sample_now(self) -> Sample:
        """Take a sample in this thread and tell subscribers; raises ReadingError.

        From within a callback only a change of level is told, after the callback returned: a subscriber to samples
        that takes one would never come to an end.
        """
        with self._counted():
            notices = self._take()
        self._publish(notices)
        if (error := notices[0].error) is not None:
            raise ReadingError(str(error))
        sample = notices[0].sample
        assert sample is not None  # a notice without an error has one
        return sample

    def subscribe(self, callback: Callable[[Notice], object], on: Topic = "level") -> Callable[[], None]:
        """Call back on each change of "level", each "sample" (also a failed one) or each "tick"; returns how to end it.

        Callbacks run in the monitor's thread or in the one that called `sample_now`, never two at once, with no lock
        held. What they raise is kept in `errors` and logged; the others still run.
        """
        return self._subscribers.add(callback, on)

    @property
    def errors(self) -> deque[Failure]:
        """The latest failures of subscribers, oldest first."""
        return self._subscribers.errors

    # -- inside -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._leave():
            self._wait(self._turn())

    def _leave(self) -> bool:
        with self._lock:  # so that `start` either sees this thread gone or keeps it from going: never two
            mine = self._thread is threading.current_thread()
            if mine and self._stopping:
                self._thread = None
            return self._stopping or not mine  # not mine: this is a child, forked by a callback

    def _turn(self) -> float:
        """One waking: a sample if it is time, then the tick; the seconds until the next."""
        with self._counted(in_thread=True):
            if self._due_in() <= 0:
                self._publish(self._take())
            self._subscribers.publish(self._notice("tick", self.level))
            return max(0.0, min(self._due_in(), self._expiry_in()))

    def _due_in(self) -> float:
        if self._last is None:
            return 0.0
        passed = self._clock() - self._last
        # Counted from the last sample, so that after a suspended night there is one sample and no burst.
        return self._interval - passed if passed >= 0 else 0.0

    def _expiry_in(self) -> float:
        seconds = self._ask_expiry()
        if seconds > 0:
            self._overdue = 0
            return seconds
        # Told, and still due (pinned, or it failed): try again ever more rarely instead of spinning.
        self._overdue += 1
        return min(self._interval, _SHORTEST_WAIT * 2.0 ** min(self._overdue - 1, 20))

    def _ask_expiry(self) -> float:
        if self._wake_in is None:
            return math.inf
        try:
            seconds = self._wake_in()
        except Exception as error:  # noqa: BLE001  foreign code must not end the thread
            self._subscribers.record("wake_in", error, known=repr(error) == self._wake_error)
            self._wake_error = repr(error)
            return math.inf
        self._wake_error = ""
        return math.inf if seconds is None else seconds

    def _wait(self, seconds: float) -> None:
        with contextlib.suppress(queue.Empty):
            self._wake.get(timeout=min(seconds, threading.TIMEOUT_MAX))
            while True:
                self._wake.get_nowait()

    def _take(self) -> tuple[Notice, ...]:
        """One reading, kept; first the notice of the sample, then that of a changed level. Readings never overlap."""
        with self._reading:
            self._last = self._clock()
            previous, sample = self.level, self._sample_or_none()
            if sample is None:
                return (self._notice("sample", previous),)
            self.latest, self.last_error = sample, None
            self.level = next_level(previous, sample.share, self.thresholds)
            self.history.append(sample)
            told = (self._notice("sample", previous),)
            return told if self.level == previous else (*told, self._notice("level", previous))

    def _sample_or_none(self) -> Sample | None:
        try:
            return self._read()
        except Exception as error:  # noqa: BLE001  the reader is given; whatever it raises is an error state, not an end
            failed = error if isinstance(error, ReadingError) else ReadingError(f"the reading failed: {error!r}")
            if self.last_error is None:
                _log.error("memory cannot be read\n%s", "".join(traceback.format_exception(error)))
            self.last_error = ReadingError(str(failed))  # anew: the raised one holds frames and what they hold
            return None

    def _notice(self, topic: Topic, previous: Level) -> Notice:
        return Notice(topic, self.level, previous, self.latest, self.last_error)

    def _publish(self, notices: tuple[Notice, ...]) -> None:
        nested = self._subscribers.delivering_here
        for notice in notices:
            if notice.topic == "level" or not nested:
                self._subscribers.publish(notice)

    @contextlib.contextmanager
    def _counted(self, in_thread: bool = False) -> Iterator[None]:
        """Adds this thread's CPU seconds to our own cost, unless the turn around it does so already."""
        if not in_thread and self._thread is threading.current_thread():
            yield
            return
        start = time.thread_time()
        try:
            yield
        finally:
            with self._lock:
                self.own_cpu_seconds += time.thread_time() - start

    def _renew(self) -> None:
        # Reentrant, and a queue rather than an Event: a finalizer or signal handler may run in the midst of either.
        self._lock, self._reading = threading.RLock(), threading.RLock()
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread = None
        self._stopping = False

    def _renew_after_fork(self) -> None:
        self._renew()
        self._subscribers.renew_after_fork()


def _checked(seconds: float) -> float:
    if not (math.isfinite(seconds) and seconds > 0):
        raise ConfigError([f"the interval between samples is {seconds} s; it must be more than 0"])
    return seconds


_monitors: weakref.WeakSet[Monitor] = weakref.WeakSet()


def _renew_all() -> None:
    # The child has one thread; locks that others held at that moment would stay locked for ever.
    for monitor in tuple(_monitors):
        monitor._renew_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
