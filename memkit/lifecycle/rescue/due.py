"""When another picture is worth its price."""

from __future__ import annotations

_CHEAP = 0.050  # seconds: shorter than anybody notices between two cells
_SHARE = 0.02  # of the time since the last one


def due_in(cost: float | None, since: float) -> float:
    """Seconds until a picture may be taken, 0 for now. `cost` is what the last one took, `since` how long ago it was.

    One that takes less than 50 ms is always due; a dearer one when it costs less than 2 % of the time since the last:
    in a row of cells that is the time they ran, and a kernel that idles gets there by itself. The cost is the
    thread's processor time: what a busy machine adds to it would put the next picture off for nothing.
    """
    if cost is None or cost < _CHEAP:
        return 0.0
    return max(0.0, cost / _SHARE - since)
