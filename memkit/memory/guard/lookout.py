"""The watch as a thread of the kernel, where no process can be started for it.

It sees nothing while one long C call holds the interpreter; there only a limit helps, where the system has one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import threading
from collections.abc import Callable

from memkit.errors import ReadingError
from memkit.memory.guard.datalimit import DataLimit
from memkit.memory.guard.gauge import Gauge, PortableGauge, Reading
from memkit.memory.guard.page import Page
from memkit.memory.guard.untouched import Untouched
from memkit.memory.guard.watch import Watch

log = logging.getLogger("memkit")
_PATIENCE = 2.0


class OwnProcess:
    """This process, as the watch sees it. Descendants are left alone here."""

    def __init__(self, gauge: Gauge | PortableGauge, untouched: Untouched, limit: DataLimit, number: int) -> None:
        self._limit, self._number = limit, number
        self._gauge, self._untouched = gauge, untouched

    def read(self) -> Reading:
        return self._untouched.follow(self._gauge.read(), self._gauge.read)

    def offspring(self) -> set[int]:
        return set()

    def anonymous_of(self, pid: int) -> int:
        return 0

    def private_of(self, pid: int) -> int:
        return 0

    def set_limit(self, soft: int | None) -> None:
        if soft is None:
            self._limit.lift()
        else:
            self._limit.set(soft)

    def signal(self) -> None:
        if os.name == "posix":
            signal.pthread_kill(threading.main_thread().ident or 0, self._number)
        else:
            import _thread

            _thread.interrupt_main(signal.Signals(self._number))

    def expose(self, pid: int) -> None:
        """Nothing: descendants are left alone."""

    def stop(self, pid: int, *, now: bool) -> None:
        """Nothing: descendants are left alone."""

    def freeze(self) -> None:
        """Nothing: this is a thread of the kernel, and stands still with it."""

    def thaw(self) -> None:
        """Nothing: see `freeze`."""

    def end(self, pid: int) -> None:
        """Nothing: descendants are left alone."""

    def tell(self, line: str) -> None:
        """Nothing is said but of descendants."""


class Lookout:
    """Stands in for `Companion`, with the same methods."""

    pid = 0
    count = 0

    def __init__(self, page: Page, system: OwnProcess, *, relieve: Callable[[int], object], why: str) -> None:
        self.trouble = why
        self._watch = Watch(page, system)
        self._relieve = relieve
        self._relieved = threading.Event()
        self._requests: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="memkit-guard", daemon=True)
        self._thread.start()

    def nudge(self) -> None:
        self._requests.put(0)

    def relieve(self, needed: int, patience: float) -> bool:
        self._relieved.clear()
        self._requests.put(needed)
        return self._relieved.wait(patience)

    def stop(self) -> None:
        self._requests.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join(_PATIENCE)

    def _run(self) -> None:
        while True:
            try:
                needed = self._requests.get(timeout=self._look())
            except queue.Empty:
                continue
            if needed is None:
                return
            if needed:
                self._answer(needed)

    def _look(self) -> float:
        with contextlib.suppress(ReadingError):  # the monitor reports it; the next look may do better
            return self._watch.turn()
        return 1.0

    def _answer(self, needed: int) -> None:
        try:
            self._relieve(needed)
        except Exception:  # what frees memory is given; a failure must not end the guard
            log.exception("memkit: memory could not be freed")
        finally:
            self._relieved.set()
