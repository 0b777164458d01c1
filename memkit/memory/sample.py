"""One reading of the process, the machine, its limits and accelerators."""

from __future__ import annotations

import functools
import gc
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memkit.errors import ConfigError, ReadingError
from memkit.memory.accelerators import Accelerators, Device
from memkit.memory.limits import HUB_VARIABLE, Constraint, Effective, effective, hub_limit
from memkit.memory.portable import PortableSource
from memkit.memory.proc import LinuxSource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from memkit.memory.gc_clock import GcClock
    from memkit.memory.source import Machine, Process, Source, Zram


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One reading. Bytes, unless said otherwise; None where the platform cannot tell, never a false 0.

    `time` is in seconds since 1970. `limit` is the lowest ceiling that applies, `available` what the tightest one
    (`binding`: machine, cgroup, MEM_LIMIT or user) leaves, and `over` by how much that one is exceeded, as one that the
    system does not hold can be. `anonymous` includes shared memory. `psi_some` and `psi_full` are shares of the last
    10 s. `blocks` counts Python's allocations. The last five are filled in by whoever knows them, with
    `dataclasses.replace`.
    """

    time: float
    limit: int
    available: int
    binding: str
    rss: int
    vms: int
    machine_total: int
    machine_available: int
    over: int = 0
    anonymous: int | None = None
    file_backed: int | None = None
    swap: int | None = None
    peak: int | None = None
    swap_total: int | None = None
    swap_used: int | None = None
    zram: Zram | None = None
    psi_some: float | None = None
    psi_full: float | None = None
    devices: tuple[Device, ...] = ()
    open_files: int | None = None
    blocks: int | None = None
    gc_runs: int | None = None
    gc_seconds: float | None = None
    tracked: int = 0
    compressed: int = 0
    disk: int = 0
    own_memory: int = 0
    own_cpu_seconds: float = 0.0

    @property
    def used(self) -> int:
        """Bytes of the limit that cannot be had."""
        return self.limit - self.available

    @property
    def share(self) -> float:
        """The used part of the limit, 0 to 1."""
        return self.used / self.limit


class Reader:
    """Takes a Sample when called; raises ReadingError where the process, the machine or a limit cannot be read.

    `user_limit` (bytes) may be set at any time. `notes` says what is left out. Any thread may call it; it holds no
    lock and no file, and works on in a forked child. `root`, `environ`, `psutil`, `accelerators` and `now` are for
    tests and for looking at another process (`pid`).
    """

    def __init__(
        self,
        root: Path = Path("/"),
        environ: Mapping[str, str] = os.environ,
        user_limit: int | None = None,
        pid: int | None = None,
        *,
        gc_clock: GcClock | None = None,
        accelerators: Accelerators | None = None,
        psutil: Any = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._source = _source(root, pid, psutil)
        self._hub_limit, self._hub_note = hub_limit(environ)
        self._accelerators = accelerators or Accelerators(pid=pid)
        self._gc_clock = gc_clock
        self._now = now
        self.user_limit = user_limit

    @property
    def user_limit(self) -> int | None:
        """The ceiling the user set for this process and its descendants, in bytes; raises ConfigError at 0."""
        return self._user_limit

    @user_limit.setter
    def user_limit(self, limit: int | None) -> None:
        if limit is not None and limit <= 0:
            raise ConfigError([f"the memory limit is {limit}; it must be more than 0 bytes, or none"])
        self._user_limit = limit

    @property
    def notes(self) -> tuple[str, ...]:
        """What no sample of this reader contains, and why."""
        hub = (self._hub_note,) if self._hub_note else ()
        return (*hub, *self._source.notes, *self._accelerators.notes)

    def __call__(self) -> Sample:
        process, machine = self._source.process(), self._source.machine()
        room = self._room(process, machine)
        return Sample(
            time=self._now(),
            limit=room.limit,
            available=room.available,
            binding=room.binding,
            over=room.over,
            rss=process.rss,
            vms=process.vms,
            anonymous=process.anonymous,
            file_backed=process.file_backed,
            swap=process.swap,
            peak=process.peak,
            **_of_machine(machine),
            devices=self._accelerators(),
            open_files=self._source.open_files(),
            **_of_python(self._gc_clock),
        )

    def close(self) -> None:
        """Let go of what accelerators hold; the reader stays usable."""
        self._accelerators.close()

    def _room(self, process: Process, machine: Machine) -> Effective:
        if machine.total <= 0:
            raise ReadingError("the machine says that it has no memory at all; its limit cannot be told")
        return effective(
            [
                Constraint("machine", machine.total, machine.total - machine.available),
                *self._source.groups(machine.total),
                *self._chosen(process),
            ]
        )

    def _chosen(self, process: Process) -> list[Constraint]:
        """Limits that count this process and its descendants, not the machine or a group."""
        limits = {HUB_VARIABLE: self._hub_limit, "user": self._user_limit}
        if not any(limits.values()):
            return []
        used = process.private + self._source.offspring()
        return [Constraint(name, limit, used) for name, limit in limits.items() if limit]


def anonymous_now(source: Source | None = None) -> int:
    """Bytes of anonymous and shared memory this process holds right now; RSS where the platform does not split it.

    The cheapest true reading (about 30 us), for measuring a release before and after. Raises ReadingError.
    """
    return (source or _this_process()).process().private


@functools.cache
def _this_process() -> Source:
    return _source(Path("/"), None, None)


def _source(root: Path, pid: int | None, psutil: Any) -> Source:
    linux = LinuxSource(root, pid)
    return linux if psutil is None and linux.exists() else PortableSource(pid, psutil)


def _of_machine(machine: Machine) -> dict[str, Any]:
    return {
        "machine_total": machine.total,
        "machine_available": machine.available,
        "swap_total": machine.swap_total,
        "swap_used": machine.swap_used,
        "zram": machine.zram,
        "psi_some": machine.psi_some,
        "psi_full": machine.psi_full,
    }


def _of_python(gc_clock: GcClock | None) -> dict[str, Any]:
    count = getattr(sys, "getallocatedblocks", None)
    return {
        "blocks": count() if count else None,
        "gc_runs": gc_clock.runs if gc_clock else sum(stats["collections"] for stats in gc.get_stats()),
        "gc_seconds": gc_clock.seconds if gc_clock else None,
    }
