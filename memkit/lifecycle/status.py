"""The state of things at one moment: machine, tiers, resources."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memkit.lifecycle.events import EventLog
from memkit.lifecycle.resource import ResourceInfo
from memkit.memory.pressure import Level
from memkit.memory.sample import Sample
from memkit.shown import Shown, Table
from memkit.units import format_bytes, format_seconds, format_share

_COLUMNS = ("name", "type", "size", "tier", "state", "idle", "left", "prio")
_RIGHT = frozenset({"size", "idle", "left", "prio", "#"})


@dataclass(frozen=True, slots=True, repr=False)
class Status(Shown):
    """Level, limit and tiers in bytes, and every resource.

    `tiers` are disjoint: `ram` is this process' own memory without what is `compressed`, `ram_file` its pages of
    mapped files, which the system can take back; `disk` is what is spilled, `swap` what the system has moved out.
    None where the platform cannot tell. `error` says why the last reading failed, if it did.
    """

    level: Level
    limit: int
    used: int
    available: int
    binding: str
    tiers: Mapping[str, int | None]
    tracked: int
    resources: tuple[ResourceInfo, ...]
    counts: Mapping[str, int]
    hit_ratio: float | None
    pressure: Mapping[str, float | None]
    own_memory: int
    own_cpu_seconds: float
    error: str | None = None

    def headline(self) -> str:
        share = format_share(self.used / self.limit)
        line = f"{format_bytes(self.used)} of {format_bytes(self.limit)} used ({share}, {self.binding}), "
        line += f"{format_bytes(self.available)} available - {self.level}"
        shown = {name.replace("_", " "): size for name, size in self.tiers.items() if size is not None}
        tiers = " · ".join(f"{name} {format_bytes(size)}" for name, size in shown.items())
        error = f"\nthe last reading failed: {self.error}" if self.error else ""
        return f"{line}\n{tiers} (of ram, {format_bytes(self.tracked)} are tracked){error}"

    def tables(self) -> tuple[Table, ...]:
        ordered = sorted(self.resources, key=lambda info: (info.type, -info.size))
        rows = [resource_row(info) for info in ordered]
        teach = "nothing is tracked yet - %memkit register NAME"
        return (self._by_type(), Table(_COLUMNS, rows, _RIGHT, empty=teach))

    def _by_type(self) -> Table:
        sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for info in self.resources:
            sums[info.type][0] += 1
            sums[info.type][1] += info.size
        rows = [(name, str(count), format_bytes(size)) for name, (count, size) in sorted(sums.items())]
        return Table(("type", "#", "size"), rows if len(rows) > 1 else (), _RIGHT)


def resource_row(info: ResourceInfo) -> tuple[str, ...]:
    """One resource as text, in the order of the columns."""
    size = ("" if info.exact else "~") + format_bytes(info.size)
    return (
        info.name,
        info.type,
        size,
        info.tier,
        info.state,
        format_seconds(info.idle),
        format_seconds(info.left),
        str(info.priority),
    )


def tiers(sample: Sample) -> dict[str, int | None]:
    """Bytes by tier from one reading, disjoint; None where the platform cannot tell."""
    own = sample.rss if sample.anonymous is None else sample.anonymous
    vram = [device.ours for device in sample.devices if device.ours is not None]
    return {
        "ram": max(0, own - sample.compressed),
        "ram_file": sample.file_backed,
        "compressed": sample.compressed,
        "disk": sample.disk,
        "vram": sum(vram) if vram else None,
        "swap": sample.swap,
    }


def status(
    sample: Sample, level: Level, resources: tuple[ResourceInfo, ...], log: EventLog, error: Exception | None
) -> Status:
    """Put a reading and the resources together."""
    counts: dict[str, int] = defaultdict(int)
    for (kind, _), count in log.counts.items():
        counts[kind] += count
    return Status(
        level=level,
        limit=sample.limit,
        used=sample.used,
        available=sample.available,
        binding=sample.binding,
        tiers=tiers(sample),
        tracked=sample.tracked,
        resources=resources,
        counts=dict(counts),
        hit_ratio=log.hit_ratio,
        pressure={"some": sample.psi_some, "full": sample.psi_full},
        own_memory=sample.own_memory,
        own_cpu_seconds=sample.own_cpu_seconds,
        error=None if error is None else f"{type(error).__name__}: {error}",
    )


@dataclass(frozen=True, slots=True, repr=False)
class LifecycleReport(Shown):
    """Status, statistics and the whole event log, for export.

    `bytes` gives the tracked bytes by type and tier, `statistics` how often what happened by type, `hit_ratio` the
    share of accesses that found the value in memory.
    """

    status: Status
    created: int
    hit_ratio: float | None
    bytes: Mapping[str, Mapping[str, int]]
    statistics: Mapping[str, Mapping[str, int]]
    events: tuple[Mapping[str, Any], ...]

    def headline(self) -> str:
        ratio = format_share(self.hit_ratio)
        return f"{self.created} resources registered, {len(self.events)} events, hit ratio {ratio}"

    def tables(self) -> tuple[Table, ...]:
        kinds = sorted({kind for counts in self.statistics.values() for kind in counts})
        rows = [(name, *(str(c.get(kind, 0)) for kind in kinds)) for name, c in sorted(self.statistics.items())]
        events = [(e["time"], e["kind"], e["name"], format_bytes(e["size"]), e["reason"]) for e in self.events[-20:]]
        return (
            Table(("type", *kinds), rows, frozenset(kinds)),
            Table(("time", "event", "name", "size", "why"), events, frozenset({"size"})),
        )

    def to_csv(self) -> str:
        """The event log as CSV."""
        import csv
        import io

        out = io.StringIO()
        writer = csv.DictWriter(out, ("time", "kind", "name", "type", "size", "reason"))
        writer.writeheader()
        writer.writerows(self.events)
        return out.getvalue()


def lifecycle_report(status: Status, log: EventLog) -> LifecycleReport:
    """Everything that is known, as of now; times in ISO 8601 with the local offset."""
    from datetime import datetime

    statistics: dict[str, dict[str, int]] = defaultdict(dict)
    for (kind, type_), count in log.counts.items():
        if kind != "level":
            statistics[type_][kind] = count
    events = tuple(
        {**event._asdict(), "time": datetime.fromtimestamp(event.time).astimezone().isoformat(timespec="milliseconds")}
        for event in log
    )
    sizes: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for info in status.resources:
        sizes[info.type][info.tier] += info.size
    return LifecycleReport(status, log.total("registered"), log.hit_ratio, sizes, dict(statistics), events)
