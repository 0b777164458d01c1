"""Where a cell is stopped: by a signal first, by a failing allocation last; pure.

A watcher cannot end one long C call, and a limit alone turns some failures into deaths (a C library that exits, aborts
or segfaults when malloc fails). So the signal comes first, at `trip` bytes left, and the limit at `floor`. Both shrink
with what is free when a cell begins: after an incident `del big` and small cells must still run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memkit.memory.guard.gauge import Reading

_TRIP = 128_000_000  # measured: cells with 128 MiB to spare pass, and the signal is handled before the limit is met
# Kept from cells for the kernel itself, which does not survive a failed allocation. A cell gets at least `_LEAST`, but
# nothing of the core: what it deletes, it has.
_RESERVE, _LEAST, _CORE = 28 * 1024 * 1024, 10 * 1024 * 1024, 20 * 1024 * 1024
_EATEN_A_SECOND = 8_000_000_000  # bytes; the most that one thread was seen to touch
_SHORTEST, _LONGEST, _IDLE = 0.002, 0.2, 0.25  # seconds between two looks


@dataclass(frozen=True, slots=True)
class Marks:
    """Bytes left at which the cell is signalled, and bytes that no allocation may take."""

    trip: int
    floor: int


def marks(free: int) -> Marks:
    """The marks for a cell that begins with this many bytes free."""
    free = max(0, free)
    trip = min(_TRIP, free // 3)
    floor = max(trip * 3 // 8, min(_RESERVE, free - _LEAST), min(_CORE, free))
    return Marks(max(trip, floor + min(_LEAST, free - floor) // 4), floor)


def idle(free: int) -> Marks:
    """The marks while no cell runs: the kernel may use what is kept for it."""
    found = marks(free)
    return Marks(found.trip, found.floor // 4)


def soft_limit(reading: Reading, floor: int) -> int:
    """RLIMIT_DATA for a process: what it has mapped as data, and as much more as can really be taken."""
    return reading.data + max(0, reading.free - floor - reading.promised)


def pause(room: int, *, running: bool) -> float:
    """Seconds until the next look: no longer than it takes to eat half of the room."""
    longest = _LONGEST if running else _IDLE
    return min(longest, max(_SHORTEST, room / 2 / _EATEN_A_SECOND))
