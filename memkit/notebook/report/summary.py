"""The few figures that a run comes down to. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from memkit.lifecycle.events import Event
from memkit.memory.sample import Sample
from memkit.notebook.report.result import CellRun, ReportResult
from memkit.units import format_bytes, format_share

_LEVELS = ("normal", "warning", "emergency")
_DEMOTED = ("compressed", "spilled", "unloaded")


@dataclass(frozen=True, slots=True)
class Moved:
    """How many resources something was done to, and their bytes."""

    count: int
    bytes: int

    @classmethod
    def of(cls, events: Iterable[Event], *kinds: str) -> Moved:
        sizes = [event.size for event in events if event.kind in kinds]
        return cls(len(sizes), sum(sizes))

    def __str__(self) -> str:
        return f"{format_bytes(self.bytes)} ({self.count})" if self.count else "nothing"


@dataclass(frozen=True, slots=True)
class Summary:
    """What was measured; None for what was not. Bytes and seconds."""

    level: str
    most: Sample | None  # the reading with the largest share of the limit in use
    last: Sample | None
    peak: int | None
    peak_cell: CellRun | None
    released: Moved
    demoted: Moved
    restored: Moved
    expired: int
    slowest: CellRun | None
    biggest: CellRun | None
    own_memory: int
    own_cpu_seconds: float
    seconds: float

    @classmethod
    def of(cls, result: ReportResult) -> Summary:
        """Of a whole run."""
        trace = result.trace
        # Events too: a level may have been left again before the next reading was written down.
        levels = {*trace.levels, *(event.type for event in trace.events if event.kind == "level")}
        last = trace.samples[-1] if trace.samples else None
        peak, cell = _peak(result)
        ran = [cell for cell in result.cells if cell.ran]
        return cls(
            level=max((level for level in levels if level in _LEVELS), key=_LEVELS.index, default="normal"),
            most=max(trace.samples, key=lambda sample: sample.share, default=None),
            last=last,
            peak=peak,
            peak_cell=cell,
            released=Moved.of(trace.events, "released"),
            demoted=Moved.of(trace.events, *_DEMOTED),
            restored=Moved.of(trace.events, "restored"),
            expired=sum(event.kind == "expired" for event in trace.events),
            slowest=max(ran, key=lambda cell: cell.seconds, default=None),
            biggest=_largest(ran, lambda cell: cell.delta),
            own_memory=last.own_memory if last else 0,
            own_cpu_seconds=last.own_cpu_seconds if last else 0.0,
            seconds=result.seconds,
        )

    def lines(self) -> list[tuple[str, str]]:
        """Five lines for a terminal or the head of a page: what, and how much."""
        return [
            ("limit", self._limit()),
            ("peak", self._peak_line()),
            ("moved", f"released {self.released}, demoted {self.demoted}, restored {self.restored}"),
            ("cells", self._cells()),
            ("memkit", self._own()),
        ]

    def _limit(self) -> str:
        if self.last is None or self.most is None:
            return "memory was not measured"
        return f"{format_bytes(self.last.limit)} ({self.last.binding}); level reached: {self.level}"

    def _peak_line(self) -> str:
        if self.peak is None or self.most is None:
            return "-"
        where = f" in cell {self.peak_cell.number}" if self.peak_cell else ""
        most = f"at most {format_share(self.most.share)} of {format_bytes(self.most.limit)} in use"
        return f"{format_bytes(self.peak)} resident{where}; {most}"

    def _cells(self) -> str:
        parts = []
        if self.slowest is not None:
            parts.append(f"slowest {self.slowest.number} ({self.slowest.seconds:.1f} s)")
        if self.biggest is not None:
            parts.append(f"biggest {self.biggest.number} ({format_bytes(self.biggest.delta, signed=True)})")
        return ", ".join(parts) or "none was run"

    def _own(self) -> str:
        if self.last is None:
            return "-"
        share = format_share(self.own_cpu_seconds / self.seconds) if self.seconds else "-"
        return f"{format_bytes(self.own_memory)}, {self.own_cpu_seconds:.2f} s of CPU ({share} of a core)"


def _peak(result: ReportResult) -> tuple[int | None, CellRun | None]:
    """The highest resident size, of the exact peaks of cells and of readings between, and the cell that reached it."""
    peaks = [cell.peak or 0 for cell in result.cells]
    most = max([*peaks, *(sample.rss for sample in result.trace.samples)], default=0)
    # Not the highest by a few pages: cells after the one that took the memory start from there.
    near = (cell for cell in result.cells if (cell.peak or 0) >= 0.99 * most > 0)
    return most or None, next(near, None)


def _largest(cells: Iterable[CellRun], value: Callable[[CellRun], int | None]) -> CellRun | None:
    known = [(size, cell) for cell in cells if (size := value(cell)) is not None]
    return max(known, key=lambda pair: pair[0])[1] if known else None
