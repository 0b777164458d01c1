"""What the rescue is doing, said to the user."""

from __future__ import annotations

import time
from dataclasses import dataclass

from memkit.shown import Shown
from memkit.units import format_bytes


@dataclass(frozen=True, slots=True, repr=False)
class RescueStatus(Shown):
    """Whether the variables would outlive the kernel now; times since the epoch, costs in seconds, sizes in bytes.

    `reason` says why there is no picture, or none of the latest cell. `private` is what the child holds alone.
    """

    active: bool
    reason: str = ""
    child: int | None = None
    taken: float | None = None
    last_cost: float | None = None
    median_cost: float | None = None
    takes: int = 0
    skipped: int = 0
    private: int | None = None
    provisional: bool = False

    def headline(self) -> str:
        if not self.active:
            return f"rescue: off - {self.reason}"
        return f"rescue: on, {self._picture()}{self._cost()}{f'; {self.reason}' if self.reason else ''}"

    def _picture(self) -> str:
        if self.provisional:
            return "variables saved to disk under pressure"
        if self.child is None or self.taken is None:
            return "no picture yet"
        at = time.strftime("%H:%M:%S", time.localtime(self.taken))
        return f"picture of {at} held by process {self.child} ({format_bytes(self.private)} of its own)"

    def _cost(self) -> str:
        if self.median_cost is None or self.last_cost is None:
            return ""
        costs = f"{self.median_cost * 1000:.1f} ms each, the last {self.last_cost * 1000:.1f} ms"
        return f"; {self.takes} taken, {self.skipped} skipped, {costs}"
