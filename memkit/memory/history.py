"""Samples of the past: every one of the last hour, the worst of each minute of the last day."""

from __future__ import annotations

from collections import deque
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memkit.memory.sample import Sample

_MINUTE = 60.0


class History:
    """A bounded past, in order of `Sample.time`.

    Samples older than `fine` seconds, or beyond `most` of them, are thinned to one a minute, the one with most in
    use; those older than `coarse` seconds are dropped. Not locked: one thread appends, others may read.
    """

    def __init__(self, fine: float = 3600.0, coarse: float = 86400.0, most: int = 1800) -> None:
        self._fine_seconds, self._coarse_seconds, self._most = fine, coarse, most
        self._fine: deque[Sample] = deque()
        self._coarse: deque[Sample] = deque()

    def __len__(self) -> int:
        return len(self._fine) + len(self._coarse)

    def append(self, sample: Sample) -> None:
        """Add the newest sample. Where the clock was set back, samples that now lie in the future are dropped."""
        for past in (self._fine, self._coarse):
            while past and past[-1].time > sample.time:
                past.pop()
        self._fine.append(sample)
        while len(self._fine) > self._most or self._fine[0].time < sample.time - self._fine_seconds:
            self._thin(self._fine.popleft())
        while self._coarse and self._coarse[0].time < sample.time - self._coarse_seconds:
            self._coarse.popleft()

    def recent(self, seconds: float | None = None) -> tuple[Sample, ...]:
        """All samples, or those of the `seconds` before the newest, oldest first."""
        samples = tuple(self._all())
        if seconds is None or not samples:
            return samples
        start = samples[-1].time - seconds
        return tuple(sample for sample in samples if sample.time >= start)

    def _thin(self, sample: Sample) -> None:
        if not self._coarse or self._coarse[-1].time // _MINUTE != sample.time // _MINUTE:
            self._coarse.append(sample)
        elif sample.used > self._coarse[-1].used:
            self._coarse[-1] = sample

    def _all(self) -> Iterator[Sample]:
        # Copied in one step each: a deque must not change while it is walked, and another thread may append.
        return chain(self._coarse.copy(), self._fine.copy())
