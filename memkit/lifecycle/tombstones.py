"""What is remembered of resources that were let go of, so that asking for one says when and why it went."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tombstone:
    """One resource that was let go of; `time` in seconds since the epoch."""

    name: str
    type: str
    time: float
    reason: str

    def __str__(self) -> str:
        at = time.strftime("%H:%M:%S", time.localtime(self.time))
        remedy = "create it again, or register it with a reload recipe"
        return f"{self.name!r} was released at {at} ({self.reason}); {remedy}"


class Tombstones:
    """The last `keep` of them by name; not thread-safe, the tracker's lock guards it."""

    def __init__(self, keep: int = 1000, wall: Callable[[], float] = time.time) -> None:
        self._keep = keep
        self._wall = wall
        self._stones: dict[str, Tombstone] = {}

    def add(self, name: str, type: str, reason: str) -> None:
        """Remember a name; the oldest is forgotten when there are too many."""
        self._stones.pop(name, None)
        if len(self._stones) >= self._keep:
            del self._stones[next(iter(self._stones))]
        self._stones[name] = Tombstone(name, type, self._wall(), reason)

    def remove(self, name: str) -> None:
        """Forget a name that is in use again."""
        self._stones.pop(name, None)

    def get(self, name: str) -> Tombstone | None:
        return self._stones.get(name)
