"""What happened to resources, when and why: a bounded log and the counts that outlive it."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

EventKind = Literal[
    "registered", "replaced", "expired", "released", "compressed", "spilled", "unloaded", "restored",
    "rebound", "deleted", "failed", "skipped", "level",
]  # fmt: skip


class Event(NamedTuple):
    """One line of the log; `time` in seconds since the epoch, `size` in bytes."""

    time: float
    kind: EventKind
    name: str
    type: str
    size: int
    reason: str


class EventLog:
    """The last `keep` events and the counts of all; appending is thread-safe."""

    def __init__(self, keep: int = 10_000, wall: Callable[[], float] = time.time) -> None:
        self._events: deque[Event] = deque(maxlen=keep)
        self._wall = wall
        self.counts: Counter[tuple[str, str]] = Counter()
        self.added = self.hits = self.misses = 0

    def add(self, kind: EventKind, name: str, type: str, size: int = 0, reason: str = "") -> None:
        self._events.append(Event(self._wall(), kind, name, type, size, reason))
        self.counts[kind, type] += 1
        self.added += 1

    def __iter__(self) -> Iterator[Event]:
        return iter(tuple(self._events))

    def __len__(self) -> int:
        return len(self._events)

    def since(self, cursor: int) -> tuple[Event, ...]:
        """The events added after `added` was `cursor`, as far as they are still kept."""
        fresh = self.added - cursor
        return tuple(self._events)[-fresh:] if fresh > 0 else ()

    def total(self, kind: EventKind) -> int:
        """How often something of this kind has happened since the start."""
        return sum(count for (k, _), count in self.counts.items() if k == kind)

    @property
    def hit_ratio(self) -> float | None:
        """Share of accesses that found the value in memory; None before the first."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else None
