"""Samples as columns to draw: bytes by tier, thinned, on an axis of seconds. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from memkit.lifecycle.status import tiers
from memkit.memory.sample import Sample
from memkit.units import GIB, KIB, MIB

T = TypeVar("T")


def by_tier(sample: Sample) -> dict[str, int | None]:
    """Bytes by tier as they are drawn: the process' own memory split into tracked and not tracked, all disjoint.

    What is tracked is what resources were sized at; where that exceeds what the process holds (mapped files, memory
    not yet touched) the latter counts.
    """
    found = tiers(sample)
    own = found.pop("ram") or 0
    tracked = min(sample.tracked, own)
    return {
        "tracked": tracked,
        "untracked": own - tracked,
        "file_backed": found["ram_file"],
        "compressed": found["compressed"],
        "vram": found["vram"],
        "swap": found["swap"],
        "disk": found["disk"],
    }


def rows(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """One plain row a sample: local time in ISO 8601, seconds from the first, bytes by tier and against the limit."""
    return [
        {
            "time": datetime.fromtimestamp(sample.time).astimezone().isoformat(timespec="milliseconds"),
            "seconds": round(sample.time - samples[0].time, 3),
            **by_tier(sample),
            "used": sample.used,
            "available": sample.available,
            "limit": sample.limit,
            "rss": sample.rss,
        }
        for sample in samples
    ]


def thin(items: Sequence[T], most: int, weight: Callable[[T], float]) -> list[T]:
    """At most `most` items in order: of each run of neighbours the heaviest, so that no peak is lost; and both ends."""
    if len(items) <= most:
        return list(items)
    inner, bins = items[1:-1], most - 2
    edges = [number * len(inner) // bins for number in range(bins + 1)]
    kept = [max(inner[low:high], key=weight) for low, high in itertools.pairwise(edges)]
    return [items[0], *kept, items[-1]]


def byte_unit(most: float) -> tuple[str, int]:
    """The unit of an axis that reaches up to `most` bytes, and its size."""
    for name, size in (("GiB", GIB), ("MiB", MIB)):
        if most >= size:
            return name, size
    return "KiB", KIB


def time_unit(seconds: float) -> tuple[str, float]:
    """The unit of a time axis that is `seconds` long, and its length in seconds."""
    if seconds < 120:
        return "seconds", 1.0
    return ("minutes", 60.0) if seconds < 7200 else ("hours", 3600.0)


def sparkline(values: Iterable[float | None], width: int = 32) -> str:
    """Values as a line of blocks for a terminal, from zero to the highest; a blank where there is none."""
    known = thin([-1.0 if value is None else float(value) for value in values], width, weight=float)
    most = max(known, default=0.0)
    blocks = "▁▂▃▄▅▆▇█"
    return "".join(" " if v < 0 else blocks[0 if most <= 0 else min(7, int(v / most * 7.999))] for v in known)
