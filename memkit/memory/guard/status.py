"""What the guard does here, mechanism by mechanism, and what it costs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memkit.errors import ReadingError
from memkit.memory.files import kilobytes, read
from memkit.shown import Shown, Table
from memkit.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from memkit.memory.guard.guard import Guard


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One of the means by which the guard works; `state` is on, off or unavailable."""

    name: str
    state: str
    note: str


@dataclass(frozen=True, slots=True, repr=False)
class GuardStatus(Shown):
    """Bytes and seconds; `watcher_memory` and `watcher_cpu` (seconds since it began) are None where there is none."""

    on: bool
    free: int | None
    limit: int | None
    trip: int
    floor: int
    watcher: int
    watcher_memory: int | None
    watcher_cpu: float | None
    watcher_starts: int
    signals: int
    relieved: int
    refused: int
    mechanisms: tuple[Mechanism, ...]

    def headline(self) -> str:
        if not self.on:
            return "guard off: a cell that needs more memory than there is kills the kernel - %memkit guard on"
        free = "unknown" if self.free is None else format_bytes(self.free)
        limit = "unknown" if self.limit is None else format_bytes(self.limit)
        ends = f"a cell is ended at {format_bytes(self.trip)} free, an allocation fails at {format_bytes(self.floor)}"
        return f"guard on: {free} free of {limit}; {ends}\n{self._done()}"

    def _done(self) -> str:
        return (
            f"so far: {self.signals} alarms, {self.relieved} ended by freeing memory, {self.refused} by ending the cell"
        )

    def tables(self) -> list[Table]:
        rows = [(part.name, part.state, part.note) for part in self.mechanisms]
        return [Table(("mechanism", "state", "note"), rows)]


def status(guard: Guard, others: tuple[Mechanism, ...] = ()) -> GuardStatus:
    """Read now; `others` are mechanisms that others have put beside the guard's own."""
    try:
        reading = guard.read()
    except ReadingError:
        reading = None
    pid = guard.companion.pid if guard.companion is not None else 0
    memory, cpu = cost_of(pid) if pid else (None, None)
    page, handler = guard.page, guard.handler
    return GuardStatus(
        on=guard.on,
        free=None if reading is None else reading.free,
        limit=None if reading is None else reading.limit,
        trip=page.trip,
        floor=page.floor,
        watcher=pid,
        watcher_memory=memory,
        watcher_cpu=cpu,
        watcher_starts=guard.companion.count if guard.companion is not None else 0,
        signals=handler.calls,
        relieved=handler.relieved,
        refused=handler.refused,
        mechanisms=(*_mechanisms(guard, memory, cpu), *others),
    )


def cost_of(pid: int) -> tuple[int | None, float | None]:
    """RSS in bytes and CPU seconds of another process; None where it has ended or cannot be read. Linux."""
    try:
        memory = kilobytes(read(f"/proc/{pid}/status"), "VmRSS")["VmRSS"]
        # proc_pid_stat(5): utime and stime are the 14th and 15th field, counted here after the program's name.
        fields = read(f"/proc/{pid}/stat").rpartition(b") ")[2].split()
        return memory, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, KeyError, ValueError, IndexError):
        return None, None


def _mechanisms(guard: Guard, memory: int | None, cpu: float | None) -> tuple[Mechanism, ...]:
    return (_limit(guard), _watcher(guard, memory, cpu), _signal(guard))


def _limit(guard: Guard) -> Mechanism:
    name = "soft limit"
    if not guard.limit.works:
        return Mechanism(
            name, "unavailable", "this system does not hold RLIMIT_DATA; one long C call can end the kernel"
        )
    if not guard.on:
        return Mechanism(name, "off", "")
    soft = guard.limit.soft
    by = "; prlimit is forbidden here: kept current only between cells" if guard.page.refused else ""
    return Mechanism(name, "on", ("lifted" if soft is None else f"RLIMIT_DATA {format_bytes(soft)}") + by)


def _watcher(guard: Guard, memory: int | None, cpu: float | None) -> Mechanism:
    name, companion = "watcher", guard.companion
    if companion is None:
        return Mechanism(name, "off", "")
    if not companion.pid:
        return Mechanism(name, "unavailable", companion.trouble or "it is being started")
    cost = "" if memory is None or cpu is None else f", {format_bytes(memory)}, {format_seconds(cpu)} of CPU"
    again = f", started {companion.count} times" if companion.count > 1 else ""
    return Mechanism(name, "on", f"process {companion.pid}{cost}{again}")


def _signal(guard: Guard) -> Mechanism:
    name = "signal"
    if not guard.on:
        return Mechanism(name, "off", "")
    if not guard.handler.installed:
        return Mechanism(name, "unavailable", "other code has taken the signal; only a failing allocation ends a cell")
    return Mechanism(name, "on", f"signal {guard.handler.number}, raised in the notebook's own code")
