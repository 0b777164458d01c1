"""Stand-ins that tests share: a clock that moves when told, a machine whose memory a test decides."""

from __future__ import annotations

import dataclasses

from memkit.memory.sample import Sample
from memkit.units import GIB


class Clock:
    """A monotonic clock that a test moves by hand."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


SAMPLE = Sample(
    time=0.0, limit=4 * GIB, available=3 * GIB, binding="machine", rss=GIB, vms=2 * GIB, machine_total=4 * GIB,
    machine_available=3 * GIB, anonymous=GIB, file_backed=0, swap=0,
)  # fmt: skip


class Machine:
    """Stands in for a Reader: `used` bytes of `limit` are in use, as the test says."""

    notes: tuple[str, ...] = ()

    def __init__(self, limit: int = 4 * GIB, used: int = GIB) -> None:
        self.limit = limit
        self.used = used
        self.user_limit: int | None = None
        self.error: Exception | None = None

    def __call__(self) -> Sample:
        if self.error is not None:
            raise self.error
        limit = min(self.limit, self.user_limit or self.limit)
        left = limit - self.used
        return dataclasses.replace(SAMPLE, limit=limit, available=max(0, left), over=max(0, -left), anonymous=self.used)

    def own(self) -> int:
        """What `anonymous_now` would say."""
        return self.used

    def close(self) -> None:
        """A Reader has something to let go of; this has not."""
