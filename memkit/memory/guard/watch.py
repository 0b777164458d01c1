"""The watch: look how much is left, keep the limit current, and say when it is too little.

Runs in a process of its own, which no long C call of the kernel can hold up; or in a thread where none can be started.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from memkit.memory.guard.gauge import Reading
from memkit.memory.guard.marks import pause, soft_limit
from memkit.memory.guard.page import LIFTED, ON, Page

_REPEAT = 0.1  # seconds between two signals while a cell runs and the last one has been dealt with
_UNANSWERED = 1.0  # seconds after which a signal is repeated that nobody has dealt with: a long C call
_IDLE_REPEAT, _IDLE_MOST = 1.0, 60.0  # while no cell runs there is little to be done about it
_CHILDREN_EVERY, _CHILDREN_IDLE = 0.25, 1.0
_WORTH_STOPPING = 48 * 1024 * 1024  # bytes by which a descendant has grown
_COPIED_UNSEEN = 96 * 1024 * 1024  # pages that may be copied until it is seen and the rescue has ended
_WORTH_DROPPING, _WEIGH_EVERY = 3 * 1024 * 1024, 0.005  # weighing takes 4 ms a GiB
_GRACE = 0.2  # seconds between SIGTERM and SIGKILL


class System(Protocol):
    """What the watch sees of the process it watches, and may do to it."""

    def read(self) -> Reading: ...

    def offspring(self) -> set[int]:
        """All descendants but those that are spared."""
        ...

    def anonymous_of(self, pid: int) -> int: ...

    def private_of(self, pid: int) -> int: ...

    def set_limit(self, soft: int | None) -> None:
        """None: as it was before memkit."""
        ...

    def signal(self) -> None: ...

    def expose(self, pid: int) -> None:
        """Make a descendant the first choice of the system's out-of-memory killer."""
        ...

    def stop(self, pid: int, *, now: bool) -> None: ...

    def freeze(self) -> None:
        """Stop the kernel where it stands, also within a C call."""
        ...

    def thaw(self) -> None: ...

    def end(self, pid: int) -> None:
        """Kill a descendant and wait until its memory is back."""
        ...

    def tell(self, line: str) -> None:
        """Say something to the kernel."""
        ...


class Watch:
    """One look after the other at one process."""

    def __init__(self, page: Page, system: System, clock: Callable[[], float] = time.monotonic) -> None:
        self._page, self._system, self._clock = page, system, clock
        self._cell = -1
        self._private_before = 0
        self._children_before: dict[int, int] = {}
        self._known: set[int] = set()
        self._listed = float("-inf")
        self._signalled = float("-inf")
        self._idle_repeat = _IDLE_REPEAT
        self._stopping: tuple[int, float] | None = None
        self._weighed = float("-inf")
        self._held: tuple[int, int, int] | None = (
            None  # the rescue's child, what it held when first weighed, what was free
        )

    def turn(self) -> float:
        """One look, and what follows from it; seconds until the next."""
        page, now = self._page, self._clock()
        if page.mode != ON:
            return pause(0, running=False) if page.mode == LIFTED else 1.0
        reading = self._system.read()
        if page.cell != self._cell:
            self._begin(reading)
        self._publish(reading)
        self._keep_limit(reading)
        room = self._room(reading)
        running = page.cell % 2 == 1
        often = _CHILDREN_EVERY if running else _CHILDREN_IDLE
        if page.spared >= 0 and (room < 0 or now - self._listed >= often):
            self._look_at_children(now, short=room < 0)
        gone = self._let_rescue_go(now, reading)
        if room < 0 and self._stopping is None and not gone:
            self._signal(now)
        return pause(room, running=running)

    def _begin(self, reading: Reading) -> None:
        self._cell, self._private_before = self._page.cell, reading.private
        self._page.peak = reading.rss
        self._children_before = {pid: self._system.anonymous_of(pid) for pid in self._system.offspring()}
        self._idle_repeat = _IDLE_REPEAT

    def _publish(self, reading: Reading) -> None:
        page = self._page
        page.free, page.limit, page.private = reading.free, reading.limit, reading.private
        page.peak = max(page.peak, reading.rss)
        page.readings += 1
        page.read_at = int(time.time() * 1000)

    def _keep_limit(self, reading: Reading) -> None:
        page = self._page
        soft = soft_limit(reading, page.floor)
        self._system.set_limit(min(soft, page.data_ceiling) if page.data_ceiling else soft)
        if page.mode != ON:  # lifted in between: the kernel writes the mode first, so one of us two sees the other
            self._system.set_limit(None)

    def _room(self, reading: Reading) -> int:
        page = self._page
        room = reading.free - reading.promised - page.trip
        return min(room, page.private_ceiling - reading.private) if page.private_ceiling else room

    # -- descendants ------------------------------------------------------------------------------------------------

    def _look_at_children(self, now: float, *, short: bool) -> None:
        self._listed = now
        there = self._system.offspring()
        for pid in there - self._known:
            self._system.expose(pid)
        self._known = there
        if self._stopping is not None:
            self._finish(now, there)
        elif short and there:
            self._stop_who_grew(now, there)

    def _stop_who_grew(self, now: float, there: set[int]) -> None:
        """A descendant that has grown by more than the kernel since the cell began; never one that was large before."""
        growth = {pid: self._growth(pid) for pid in there}
        pid = max(growth, key=lambda pid: growth[pid])
        if growth[pid] >= max(_WORTH_STOPPING, self._page.private - self._private_before):
            self._stopping = (pid, now)
            self._system.stop(pid, now=False)
            self._system.tell(f"stopped {pid} {growth[pid]}")

    def _growth(self, pid: int) -> int:
        """Bytes since the cell began; a copy that changes its pages does not count as growing."""
        before = self._children_before.get(pid)
        return self._system.private_of(pid) if before is None else self._system.anonymous_of(pid) - before

    def _finish(self, now: float, there: set[int]) -> None:
        assert self._stopping is not None
        pid, since = self._stopping
        if pid not in there:
            self._stopping = None
        elif now - since > _GRACE:
            self._system.stop(pid, now=True)

    def _let_rescue_go(self, now: float, reading: Reading) -> bool:
        """End the rescue's child where it is what takes the memory: pages that the kernel changes are there twice.

        One C call can change them all, such as a run of the garbage collector. So the kernel stands still meanwhile. A
        child that does not hold more from one look to the next is not to blame, and will be needed.
        """
        page, pid = self._page, self._page.spared
        if pid <= 0 or reading.free > max(_COPIED_UNSEEN, page.trip):
            self._held = None
            return False
        if now - self._weighed < _WEIGH_EVERY:
            return False
        self._weighed = now
        self._system.freeze()
        try:
            held = self._system.private_of(pid)
            if not self._is_to_blame(pid, held, reading.free):
                return False
            self._system.end(pid)
        finally:
            self._system.thaw()
        page.spared = 0
        self._system.tell(f"dropped {pid} {held}")
        return True

    def _is_to_blame(self, pid: int, held: int, free: int) -> bool:
        """Whether most of what is gone since the child was first weighed has become its own."""
        if self._held is None or self._held[0] != pid:
            self._held = (pid, held, free)
        more, less = held - self._held[1], self._held[2] - free
        return more >= max(_WORTH_DROPPING, less // 2)

    # -- the kernel ---------------------------------------------------------------------------------------------------

    def _signal(self, now: float) -> None:
        page, passed = self._page, now - self._signalled
        running = page.cell % 2 == 1
        answered = page.handled == page.signalled
        wait = _UNANSWERED if not answered else _REPEAT if running else self._idle_repeat
        if passed < wait:
            return
        if not running:
            self._idle_repeat = min(_IDLE_MOST, 2 * self._idle_repeat)
        self._signalled = now
        page.signalled += 1
        self._system.signal()
