"""How often and how long Python's garbage collector runs."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class GcClock:
    """Counts collections and the seconds they take while installed; collections of all threads are seen."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.runs = 0
        self.seconds = 0.0
        self.longest = 0.0
        self._clock = clock
        self._started: float | None = None

    def install(self) -> None:
        """Start counting; a second call changes nothing."""
        if self._note not in gc.callbacks:
            gc.callbacks.append(self._note)

    def uninstall(self) -> None:
        """Stop counting and keep the figures; a second call changes nothing."""
        if self._note in gc.callbacks:
            gc.callbacks.remove(self._note)
        self._started = None

    def _note(self, phase: str, info: dict[str, int]) -> None:
        now = self._clock()
        if phase == "start":
            self._started = now
        elif self._started is not None:  # installed from within a collection: its start was not seen
            pause, self._started = now - self._started, None
            self.runs += 1
            self.seconds += pause
            self.longest = max(self.longest, pause)
