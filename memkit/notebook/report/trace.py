"""What a recorder wrote down, read back while it is written and after whoever wrote it has died."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memkit.errors import MemkitError
from memkit.lifecycle.events import Event
from memkit.memory.accelerators import Device
from memkit.memory.pressure import Thresholds
from memkit.memory.sample import Sample
from memkit.notebook.cells import CellRecord


@dataclass(frozen=True, slots=True)
class Resident:
    """One tracked resource as it was last seen; size in bytes."""

    name: str
    type: str
    size: int
    tier: str
    state: str


@dataclass(slots=True)
class Trace:
    """Everything read so far; times in seconds since 1970, sizes in bytes.

    `resources` are the largest of `resource_count`. `cell` is the one that began last. `begun` is false until the
    recorder in the kernel has said that it is there, `store` where it was told to keep what is spilled.
    """

    begun: bool = False
    store: Path | None = None
    thresholds: Thresholds | None = None
    samples: list[Sample] = field(default_factory=list)
    levels: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    records: list[CellRecord] = field(default_factory=list)
    resources: tuple[Resident, ...] = ()
    resource_count: int = 0
    cell: str | None = None
    errors: list[str] = field(default_factory=list)

    def add(self, line: Mapping[str, Any]) -> None:
        """Take in one line; an unknown kind is of a newer recorder and left out."""
        take = _TAKE.get(str(line.get("what")))
        if take is not None:
            take(self, line)


class Tail:
    """Reads a growing file of JSON lines; a line that is not complete waits for its rest."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0
        self.trace = Trace()

    def read(self) -> Trace:
        """Take in what has been written since the last call."""
        if not self._path.exists():
            return self.trace
        with self._path.open("rb") as file:
            file.seek(self._offset)
            complete, newline, _ = file.read().rpartition(b"\n")
        self._offset += len(complete) + len(newline)
        for line in complete.splitlines():
            self._take(line)
        return self.trace

    def _take(self, line: bytes) -> None:
        try:
            self.trace.add(json.loads(line))
        except (ValueError, TypeError, KeyError, MemkitError) as error:  # torn by a full disk, or of another version
            self.trace.errors.append(f"a line of the recording cannot be read: {error}")


def _known(kind: type, line: Mapping[str, Any]) -> dict[str, Any]:
    return {f.name: line[f.name] for f in dataclasses.fields(kind) if f.name in line}


def _start(trace: Trace, line: Mapping[str, Any]) -> None:
    trace.begun = True
    trace.store = Path(line["store"]) if line["store"] else None
    trace.thresholds = Thresholds(**_known(Thresholds, line["thresholds"]))


def _sample(trace: Trace, line: Mapping[str, Any]) -> None:
    devices = tuple(Device(**_known(Device, device)) for device in line.get("devices", ()))
    sample = Sample(**{**_known(Sample, line), "devices": devices})
    if not trace.samples or trace.samples[-1].time <= sample.time:
        trace.samples.append(sample)
        trace.levels.append(str(line["level"]))


def _event(trace: Trace, line: Mapping[str, Any]) -> None:
    trace.events.append(Event(**{name: line[name] for name in Event._fields}))


def _resources(trace: Trace, line: Mapping[str, Any]) -> None:
    trace.resources = tuple(Resident(*row) for row in line["rows"])
    trace.resource_count = int(line["count"])


def _cell(trace: Trace, line: Mapping[str, Any]) -> None:
    trace.cell = str(line["title"])


def _record(trace: Trace, line: Mapping[str, Any]) -> None:
    trace.records.append(CellRecord(**_known(CellRecord, line)))


def _thresholds(trace: Trace, line: Mapping[str, Any]) -> None:
    trace.thresholds = Thresholds(**_known(Thresholds, line))


def _failed(trace: Trace, line: Mapping[str, Any]) -> None:
    trace.errors.append(f"memory could not be read: {line['error']}")


_TAKE = {
    "start": _start,
    "sample": _sample,
    "event": _event,
    "resources": _resources,
    "cell": _cell,
    "record": _record,
    "thresholds": _thresholds,
    "failed reading": _failed,
}
