"""What the kernel's main thread does when the watch says that memory runs out."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from types import FrameType
from typing import TYPE_CHECKING, Any

from memkit.errors import ReadingError
from memkit.memory import heap
from memkit.memory.guard import stack, threads
from memkit.memory.guard.strikes import Strikes
from memkit.units import format_bytes

if TYPE_CHECKING:
    from memkit.memory.guard.gauge import Reading
    from memkit.memory.guard.guard import Guard, Refused

_PATIENCE = 15.0  # seconds for spilling what policies allow, while the cell waits
_INNOCENT = 16 * 1024 * 1024  # a cell that has grown by less is not ended for what others take
_OWN = "memkit."
_SWALLOWS = "memkit.memory.gc_clock"  # Python ignores what a callback of the garbage collector raises
# Its default is to be ignored: one that comes too late, to a process that ends or to a child, does no harm. Windows has
# neither it nor anything like it; there SIGBREAK is only ever raised from inside.
NUMBER = int(getattr(signal, "SIGURG", 0) or signal.SIGBREAK)  # type: ignore[attr-defined]


class Handler:
    """Between two bytecodes of the main thread: look again, free what can be freed, and only then end the cell."""

    patience = _PATIENCE

    def __init__(self, guard: Guard, is_user: Callable[[FrameType], bool]) -> None:
        self.number = NUMBER
        self._guard, self._is_user = guard, is_user
        self._strikes = Strikes()
        self._busy = False
        self._previous: Any = None
        self._why = ""  # what ended the cell besides the lack of memory
        self.calls = self.relieved = self.refused = 0

    def install(self) -> None:
        """Take the signal; for the main thread."""
        self._previous = signal.signal(self.number, self._on_signal)

    @property
    def installed(self) -> bool:
        """Whether the signal is still ours."""
        return signal.getsignal(self.number) == self._on_signal

    def uninstall(self) -> None:
        """Give the signal back to who had it."""
        signal.signal(self.number, signal.SIG_DFL if self._previous is None else self._previous)

    @property
    def struck(self) -> bool:
        """Whether something was raised in this cell."""
        return self._strikes.count > 0

    def begin(self) -> None:
        """A cell begins or ends."""
        self._strikes = Strikes()
        self._why = ""

    def heard(self, line: str) -> None:
        """In the guard's thread: the watcher has stopped a descendant; whoever waits for its result must know."""
        word, *numbers = line.split()
        if word == "stopped" and len(numbers) == 2:
            pid, size = map(int, numbers)
            self.end_cell_for(f"process {pid}, which it had started, took {format_bytes(size)} and was stopped.")

    def end_cell_for(self, why: str) -> None:
        """Have the main thread end the running cell, whose work cannot be finished any more; from any thread."""
        self._why = why
        os.kill(os.getpid(), self.number)

    # -- the signal ---------------------------------------------------------------------------------------------------

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        guard = self._guard
        if self._busy or not guard.on or guard.page.mode == 0:
            return
        self._busy = True
        self.calls += 1
        try:
            with guard.at_work() if threads.running() <= guard.threads_before else nullcontext():
                error = self._judge(frame)
        except ReadingError:
            error = None
        finally:
            self._busy = False
            guard.page.handled = guard.page.signalled
        if error is not None:
            self.refused += 1
            raise error

    def _judge(self, frame: FrameType | None) -> BaseException | None:
        """The error to raise, if any."""
        if frame is not None and frame.f_globals.get("__name__") == _SWALLOWS:
            return None  # the next signal will be elsewhere
        if self._why:
            why, self._why = self._why, ""
            return self._error(frame, why)
        if self._strikes.unwinding(time.monotonic()) or not self._short(self._guard.read()):
            return None
        heap.trim()
        reading = self._guard.read()
        if not self._short(reading):
            return None
        if not stack.within(frame, _OWN, self._is_user) and not self._over_budget(reading):
            reading = self._relieve(reading)
        if not self._short(reading) or not self._has_grown(reading):
            return None
        return self._error(frame, "")

    def _short(self, reading: Reading) -> bool:
        left = reading.free - reading.promised
        return left < self._guard.page.trip or self._over_budget(reading)

    def _over_budget(self, reading: Reading) -> bool:
        ceiling = self._guard.page.private_ceiling
        return bool(ceiling) and reading.private > ceiling

    def _has_grown(self, reading: Reading) -> bool:
        before = self._guard.before
        # What is written to /dev/shm or a memfd belongs to no process.
        files = min(reading.shared - before.shared, before.free - reading.free)
        grown = max(reading.private - before.private, reading.data - before.data, files)
        return grown >= min(_INNOCENT, self._guard.page.trip // 2) or self._over_budget(reading)

    def _relieve(self, reading: Reading) -> Reading:
        companion, trip = self._guard.companion, self._guard.page.trip
        if companion is None:
            return reading
        companion.relieve(3 * trip - reading.free, _PATIENCE)
        after = self._guard.read()
        self.relieved += not self._short(after)
        return after

    def _error(self, frame: FrameType | None, reason: str) -> BaseException | None:
        refused = self._guard.refusal(reason)
        text = message(refused) if refused is not None else reason
        self._end_threads(text)
        kind = self._strikes.next(time.monotonic()) if stack.any_of(frame, self._is_user) else None
        return None if kind is None else kind(text)

    def _end_threads(self, text: str) -> None:
        """Those the cell has started: first those that run the notebook's code, and if that was not enough, all."""
        if self._strikes.count <= 1:
            everybody = self._strikes.count == 1
            threads.end(self._guard.threads_before, _with_text(text), None if everybody else self._is_user)


def message(refused: Refused) -> str:
    """The first line of what a cell ends with."""
    if refused.budget is not None:
        return f"this cell has used up its budget of {format_bytes(refused.budget)}"
    left = f"{format_bytes(refused.free)} free of {format_bytes(refused.limit)}"
    if refused.reason:
        return f"this cell needed more memory than is left: {left}; {refused.reason}"
    if refused.promised:
        left += f", {format_bytes(refused.promised)} of it allocated and not yet filled"
    grown = f"it had grown by {format_bytes(max(0, refused.grown))}"
    return f"this cell needed more memory than is left: {left} ({grown})."


def _with_text(text: str) -> type[BaseException]:
    """An asynchronous exception is given as a class; this one knows its text."""
    from memkit.errors import MemoryGuardError

    def begin(self: MemoryGuardError) -> None:
        MemoryGuardError.__init__(self, text)

    return type("MemoryGuardError", (MemoryGuardError,), {"__init__": begin})
