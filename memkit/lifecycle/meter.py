"""How much memory came back, as measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from memkit.units import MIB

# Below this a full collection and a heap trim (tens of ms) cost more than they could show.
WORTH_COLLECTING = MIB


@dataclass(frozen=True, slots=True)
class Meter:
    """Reads this process' own memory in bytes, and has the heap given back to the system."""

    read: Callable[[], int]
    give_back: Callable[[], object]
    clock: Callable[[], float] = time.perf_counter

    def start(self) -> Measurement:
        """Begin a measurement now."""
        return Measurement(self, self.read(), self.clock())


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measurement under way."""

    meter: Meter
    before: int
    began: float

    def freed(self) -> int:
        """Bytes by which this process' memory has fallen so far."""
        return self.before - self.meter.read()

    def settled(self, expected: int) -> int:
        """Bytes freed once the heap has been given back, where that may still make a difference."""
        freed = self.freed()
        if expected >= WORTH_COLLECTING and freed < 0.98 * expected:
            self.meter.give_back()
            freed = self.freed()
        return freed

    @property
    def seconds(self) -> float:
        return self.meter.clock() - self.began
