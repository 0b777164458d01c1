"""What a cell that does not stop is raised next; pure."""

from __future__ import annotations

from memkit.errors import MemoryGuardError, MemoryGuardInterrupt

_APART = 1.0  # seconds to unwind before it is raised again
_GENTLE = 2  # cells that swallow `Exception` more often than this are interrupted


class Strikes:
    """Counts what was raised in one cell."""

    def __init__(self) -> None:
        self.count = 0
        self._last = float("-inf")

    def unwinding(self, now: float) -> bool:
        """Whether something was raised a moment ago, so that the cell may be about to end."""
        return now - self._last < _APART

    def next(self, now: float) -> type[BaseException] | None:
        """The class to raise at this time in seconds; None while the cell may still be unwinding from the last."""
        if self.unwinding(now):
            return None
        self.count += 1
        self._last = now
        return MemoryGuardError if self.count <= _GENTLE else MemoryGuardInterrupt
