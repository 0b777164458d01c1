"""Who wants to hear of readings, and telling them one after the other, outside every lock."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from memkit.errors import ReadingError
    from memkit.memory.pressure import Level
    from memkit.memory.sample import Sample

    Callback = Callable[["Notice"], object]

Topic = Literal["level", "sample", "tick"]
_log = logging.getLogger(__name__)
_MOST_WAITING = 256  # notices kept for a subscriber that does not return; the oldest go first
_MOST_ERRORS = 50


@dataclass(frozen=True, slots=True)
class Notice:
    """What a subscriber is told. `sample` is the latest good one; `error` says that the newest reading failed."""

    topic: Topic
    level: Level
    previous: Level
    sample: Sample | None
    error: ReadingError | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A subscriber that raised: when (seconds since 1970), which, and the traceback as text, which holds no memory."""

    time: float
    subscriber: str
    text: str


class _Subscription:
    __slots__ = ("callback", "last_error", "topic")

    def __init__(self, callback: Callback, topic: Topic) -> None:
        self.callback, self.topic, self.last_error = callback, topic, ""


class Subscribers:
    """Delivers notices in the order in which they were published, by one thread at a time.

    A thread that publishes while another delivers, or from within a callback, leaves its notice to the one that is
    at it: so callbacks never run nested or twice at once, and nobody waits for anybody.
    """

    _deliverer: int | None

    def __init__(self) -> None:
        self.errors: deque[Failure] = deque(maxlen=_MOST_ERRORS)
        self._subscriptions: tuple[_Subscription, ...] = ()
        self._renew_lock()

    def add(self, callback: Callback, topic: Topic) -> Callable[[], None]:
        """Call back on each notice of a topic, until the returned function is called (again does no harm)."""
        subscription = _Subscription(callback, topic)
        with self._lock:
            self._subscriptions = (*self._subscriptions, subscription)
        return lambda: self._remove(subscription)

    def publish(self, notice: Notice) -> None:
        """Tell the subscribers of the notice's topic; what they raise is recorded and the others still run."""
        self._waiting.append(notice)
        try:
            if self._begin():
                while (waiting := self._take()) is not None:
                    self._deliver(waiting)
        except BaseException:  # KeyboardInterrupt, in a callback or right here: whoever publishes next goes on
            if self.delivering_here:
                self._deliverer = None
            raise

    def record(self, name: str, error: Exception, *, known: bool = False) -> None:
        """Keep a failure of foreign code as text; logged too, unless it is `known`."""
        text = "".join(traceback.format_exception(error))
        self.errors.append(Failure(time.time(), name, text))
        if not known:
            # As text: a log record with the exception would let its handlers keep the frames and what they hold.
            _log.error("%s, called by the memory monitor, raised\n%s", name, text)

    @property
    def delivering_here(self) -> bool:
        """Whether this thread is inside a callback."""
        return self._deliverer == threading.get_ident()

    def renew_after_fork(self) -> None:
        """In a forked child: forget locks and notices of threads that do not exist here."""
        self._renew_lock()

    def _renew_lock(self) -> None:
        # Reentrant: a finalizer or a signal handler may interrupt this very thread inside it.
        self._lock = threading.RLock()
        self._waiting: deque[Notice] = deque(maxlen=_MOST_WAITING)
        self._deliverer = None

    def _remove(self, subscription: _Subscription) -> None:
        with self._lock:
            self._subscriptions = tuple(s for s in self._subscriptions if s is not subscription)

    def _begin(self) -> bool:
        with self._lock:
            if self._deliverer is not None:
                return False
            self._deliverer = threading.get_ident()
            return True

    def _take(self) -> Notice | None:
        with self._lock:  # looking and leaving are one step: a notice published in between would be stranded
            if self._waiting:
                return self._waiting.popleft()
            self._deliverer = None
            return None

    def _deliver(self, notice: Notice) -> None:
        for subscription in self._subscriptions:
            if subscription.topic == notice.topic and subscription in self._subscriptions:
                self._call(subscription, notice)

    def _call(self, subscription: _Subscription, notice: Notice) -> None:
        try:
            subscription.callback(notice)
        except Exception as error:  # noqa: BLE001  foreign code; recorded, and logged when it says something new
            name = getattr(subscription.callback, "__qualname__", repr(subscription.callback))
            self.record(name, error, known=subscription.last_error == repr(error))
            subscription.last_error = repr(error)
        else:
            subscription.last_error = ""
