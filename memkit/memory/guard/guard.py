"""The guard: keeps a cell from taking more memory than there is."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from memkit.errors import MemkitError, ReadingError
from memkit.memory import heap
from memkit.memory.guard import threads
from memkit.memory.guard.datalimit import DataLimit
from memkit.memory.guard.gauge import Gauge, PortableGauge, Reading
from memkit.memory.guard.marks import idle, marks, soft_limit
from memkit.memory.guard.page import LIFTED, OFF, ON, Page
from memkit.memory.guard.untouched import Untouched

if TYPE_CHECKING:
    from memkit.memory.guard.companion import Companion
    from memkit.memory.guard.lookout import Lookout
    from memkit.memory.guard.status import GuardStatus

# Beyond a budget's signal: as for the machine's own memory, the failing allocation comes last.
_SLACK = 80_000_000
_SCARCE = 256 * 1024 * 1024
# While memory is being freed on behalf of a waiting cell, that work may use most of what no cell may.
_FLOOR_AT_WORK = 4


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a cell is ended: bytes free of the limit, by how much the cell had grown, its budget if that is used up.

    `promised` bytes of what is free are allocated already and only not yet touched.
    """

    free: int
    limit: int
    grown: int
    promised: int = 0
    budget: int | None = None
    reason: str = ""


class Guard:
    """One for a process; made and started in its main thread, which is the one that runs cells.

    `is_user(frame)` tells the notebook's own code: only there is anything raised. `relieve(bytes)` frees memory by
    policy, in the guard's thread, before a cell is ended. Nothing happens in a forked child.
    """

    def __init__(
        self,
        *,
        is_user: Callable[[FrameType], bool],
        relieve: Callable[[int], object],
        user_limit: Callable[[], int | None] = lambda: None,
        gauge: Gauge | PortableGauge | None = None,
    ) -> None:
        from memkit.memory.guard.handler import Handler

        linux = sys.platform.startswith("linux") and Path("/proc/self/status").exists()
        self._gauge = gauge or (Gauge() if linux else PortableGauge())
        self._user_limit = user_limit
        self._relieve = relieve
        self.page = Page()
        self.limit = DataLimit()
        self._untouched = Untouched(reserves=lambda: self.page.reserves)
        self.handler = Handler(self, is_user)
        self.companion: Companion | Lookout | None = None
        self.pid = os.getpid()
        self.before = Reading(0, 0, 0)
        self.threads_before = threads.running()
        self.budgets: list[int] = []
        self.on_switch: list[Callable[[bool], object]] = []  # told when it has been switched on, or is about to be off
        self._depth = 0
        self._lifts = 0
        self._lifting = threading.RLock()
        if hasattr(os, "register_at_fork"):
            itself = weakref.ref(self)
            os.register_at_fork(after_in_child=lambda: _in_child(itself))

    # -- on and off -------------------------------------------------------------------------------------------------

    @property
    def on(self) -> bool:
        """Whether cells are guarded; never in a forked child."""
        return self.companion is not None and self.pid == os.getpid()

    def start(self) -> None:
        """Begin; idempotent. Raises MemkitError outside the main thread."""
        if self.on:
            return
        if threading.current_thread() is not threading.main_thread():
            raise MemkitError("the guard can be switched on only from a cell of the main shell, not from a subshell")
        self.handler.install()
        self.page.reserves = self._untouched.walk()[0]
        self._begin(running=False)
        self.companion = self._companion()
        self._tell(True)

    def stop(self) -> None:
        """End the watcher and lift every limit; idempotent."""
        if not self.on:
            return
        self._tell(False)
        companion, self.companion = self.companion, None
        assert companion is not None
        self.page.mode = OFF
        companion.stop()
        self.limit.lift()
        self.handler.uninstall()

    def _tell(self, on: bool) -> None:
        for listener in tuple(self.on_switch):
            listener(on)

    def close(self) -> None:
        """Stop for good."""
        self.stop()
        self.page.close()

    def _companion(self) -> Companion | Lookout:
        number = self.handler.number
        if isinstance(self._gauge, Gauge) and sys.executable and self.page.fd is not None:
            from memkit.memory.guard.companion import Companion

            arguments = [self.pid, self.page.fd, number, *self.limit.before]
            return Companion(
                [str(argument) for argument in arguments],
                self.page.fd,
                relieve=self._relieve,
                heard=self.handler.heard,
            )
        from memkit.memory.guard.lookout import Lookout, OwnProcess

        why = f"no watcher process on {sys.platform}: a thread watches"
        return Lookout(
            self.page, OwnProcess(self._gauge, self._untouched, self.limit, number), relieve=self._relieve, why=why
        )

    # -- cells ------------------------------------------------------------------------------------------------------

    def begin_cell(self) -> None:
        """A cell begins: marks and limit by what is free now. Cells nest; the outermost counts."""
        self._depth += 1
        if self._depth == 1 and self.on:
            self._begin(running=True)

    def end_cell(self) -> None:
        """A cell has ended: what it lifted is in force again, and the limit stays while the kernel is idle."""
        self._depth = max(0, self._depth - 1)
        if self._depth == 0 and self.on:
            self._lifts = 0
            self._begin(running=False)

    def _begin(self, *, running: bool) -> None:
        page = self.page
        page.mode = LIFTED  # what is left below the limit may not even be enough to look
        self.limit.lift()
        reading = self._settled()
        self.before = reading
        self.handler.begin()
        if running:
            self.threads_before = threads.running()
        found = (marks if running else idle)(reading.free)
        page.trip, page.floor = found.trip, found.floor
        page.user_limit = self._user_limit() or 0
        page.cell += 2 - page.cell % 2 - (1 if running else 0)
        page.mode = ON
        self._set_limit(reading)
        if self.companion is not None:
            self.companion.nudge()

    def _settled(self) -> Reading:
        """What is free, once freed heap has been given back where that may matter."""
        reading = self.read()
        scarce = reading.free < max(_SCARCE, reading.limit // 10) and reading.private > _SCARCE
        if scarce or self.handler.struck:
            # Collecting takes seconds with many objects; what an error has left in cycles is worth it.
            heap.give_back(collect=self.handler.struck)
            reading = self.read()
        return reading

    def _set_limit(self, reading: Reading) -> None:
        page = self.page
        soft = soft_limit(reading, page.floor)
        self.limit.set(min(soft, page.data_ceiling) if page.data_ceiling else soft)

    def read(self) -> Reading:
        """What can be had now; raises ReadingError."""
        self._gauge.user_limit = self._user_limit()
        return self._untouched.follow(self._gauge.read(), self._gauge.read)

    # -- exceptions to the rule ---------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """The guard's own work at the brink may take what the cell may not."""
        page, floor = self.page, self.page.floor
        page.floor = floor // _FLOOR_AT_WORK
        if self.limit.soft is not None:
            self.limit.set(self.limit.soft + floor - page.floor)
        try:
            yield
        finally:
            page.floor = floor

    @contextlib.contextmanager
    def lifted(self) -> Iterator[None]:
        """No limit inside: for what is counted as memory and takes none, such as a private mapping of a file."""
        if not self.on:
            yield
            return
        self._lift()
        try:
            yield
        finally:
            self._lower()

    @contextlib.contextmanager
    def importing(self) -> Iterator[None]:
        """What a library maps inside and does not touch is its reserve, and no promise to anybody."""
        if not self.on:
            yield
            return
        before = self._untouched.walk()[0]
        try:
            yield
        finally:
            self.page.reserves += max(0, self._untouched.walk()[0] - before)

    def _lift(self) -> None:
        with self._lifting:
            self._lifts += 1
            self.page.mode = LIFTED  # before the limit: see Watch._keep_limit
            self.limit.lift()

    def relax(self) -> None:
        """No limit until the cell's end, with next to no memory to do it: for what comes after a failed allocation."""
        if self.companion is not None and self._depth:
            self.page.mode = LIFTED
            self.limit.lift()

    def _lower(self) -> None:
        with self._lifting:
            self._lifts = max(0, self._lifts - 1)
            if self._lifts == 0 and self.on:
                self.page.mode = ON
                self._set_limit(self.read())

    def lift(self) -> contextlib.ExitStack:
        """Guard nothing until the cell ends; or, used in a `with`, inside it. The rescue stays."""
        if self.on:
            self._lift()
        until = contextlib.ExitStack()
        until.callback(self._lower)
        return until

    @contextlib.contextmanager
    def budget(self, size: int) -> Iterator[None]:
        """A ceiling of `size` bytes of growth inside; raises MemoryGuardError there. Nested, the lowest counts."""
        if not self.on:
            raise MemkitError("a budget needs the guard; switch it on: %memkit guard on")
        page, reading = self.page, self.read()
        before = page.private_ceiling, page.data_ceiling
        self.budgets.append(size)
        page.private_ceiling = _lower_of(before[0], reading.private + size)
        page.data_ceiling = _lower_of(before[1], reading.data + size + _SLACK)
        self._set_limit(reading)
        if self.companion is not None:
            self.companion.nudge()
        try:
            yield
        finally:
            page.private_ceiling, page.data_ceiling = before
            self.budgets.pop()
            if self.on and page.mode == ON:
                self._set_limit(self.read())

    # -- for those who ask ------------------------------------------------------------------------------------------

    def free(self) -> int:
        """Bytes that can be had before an allocation fails; without end while nothing is guarded."""
        if self._lifts or not self.on:
            return sys.maxsize
        reading = self.read()
        return max(0, reading.free - reading.promised - self.page.floor)

    def make_room(self, needed: int) -> int:
        """Free what policies allow until `needed` bytes can be had; answers how many can."""
        free = self.free()
        if needed > free and self.companion is not None:
            self.companion.relieve(needed - free + self.page.trip, self.handler.patience)
            free = self.free()
        return free

    def status(self) -> GuardStatus:
        """What is active here, and what it costs."""
        from memkit.memory.guard.status import status

        return status(self)

    def refusal(self, reason: str = "") -> Refused | None:
        """What a cell that is ended for want of memory is told; None where memory cannot be read."""
        try:
            reading = self.read()
        except ReadingError:
            return None
        budget = self.budgets[-1] if self.budgets and self._budget_binds(reading) else None
        grown = reading.private - self.before.private
        return Refused(reading.free, reading.limit, grown, reading.promised, budget, reason)

    def _budget_binds(self, reading: Reading) -> bool:
        """Whether the budget, and not what is free, is what ends the cell."""
        page = self.page
        soft = soft_limit(reading, page.floor)
        return reading.private > page.private_ceiling or page.data_ceiling <= soft


def _in_child(guard: weakref.ref[Guard]) -> None:
    """A forked child is watched from outside. In it an allocation that fails would be an error that nobody shows."""
    found = guard()
    if found is not None and found.companion is not None:
        found.limit.lift()


def _lower_of(before: int, new: int) -> int:
    return min(before, new) if before else new
