"""How much memory can still be had, read in about a tenth of a millisecond."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memkit.errors import ReadingError
from memkit.memory.descendants import anonymous_bytes, descendants, private_bytes
from memkit.memory.files import kilobytes, read
from memkit.memory.limits import Constraint, effective, hub_limit
from memkit.memory.proc import LinuxSource

if TYPE_CHECKING:
    from pathlib import Path

# Free swap counts as memory up to this share of RAM: a machine with a little swap goes on using it, and one with a lot
# is stopped before it does nothing but swap.
_SWAP_SHARE = 4


@dataclass(frozen=True, slots=True)
class Reading:
    """Bytes: what can still be had, of which limit; what the process holds alone, has mapped as data, has in swap; RSS;
    what all processes have in memory files (`shared`).

    `promised` are bytes allocated and not yet taken, as `Untouched` knows them.
    """

    free: int
    limit: int
    private: int
    data: int = 0
    anonymous: int = 0
    swapped: int = 0
    rss: int = 0
    shared: int = 0
    promised: int = 0

    @property
    def gap(self) -> int:
        """Data segments that take no memory: untouched, or given back in place."""
        return self.data - self.anonymous - self.swapped


class Gauge:
    """Reads a process on Linux; `pid` None is the one that asks. `spared` are descendants that never count."""

    def __init__(self, root: Path | str = "/", pid: int | None = None, environ: Mapping[str, str] = os.environ) -> None:
        self._proc = f"{str(root).rstrip('/')}/proc"
        self._pid = pid
        self._source = LinuxSource(root, pid)
        self._hub = hub_limit(environ)[0]
        self.user_limit: int | None = None
        self.spared: Callable[[], AbstractSet[int]] = frozenset

    def read(self) -> Reading:
        """Raises ReadingError, also when the process has ended.

        What is free is read between two looks at the process, and the smaller counts: memory that is given back in
        between would be free and mapped both, and so be given out twice.
        """
        try:
            before = self._process()
            machine = kilobytes(read(f"{self._proc}/meminfo"), "MemTotal", "MemAvailable", "SwapFree", "Shmem")
            private = before["RssAnon"] + before.get("RssShmem", 0)
            room = effective([_machine(machine), *self._source.groups(machine["MemTotal"]), *self._chosen(private)])
            own = min(self._process(), before, key=lambda sizes: sizes.get("VmData", 0))
        except (OSError, KeyError, ValueError) as error:
            raise ReadingError(f"the memory of this process and its limits cannot be read: {error!r}") from error
        return Reading(
            free=room.available,
            limit=room.limit,
            private=own["RssAnon"] + own.get("RssShmem", 0),
            data=own.get("VmData", 0),
            anonymous=own["RssAnon"],
            swapped=own.get("VmSwap", 0),
            rss=own["VmRSS"],
            shared=machine.get("Shmem", 0),
        )

    def _process(self) -> dict[str, int]:
        status = read(f"{self._proc}/{self._name}/status")
        return kilobytes(status, "VmData", "RssAnon", "RssShmem", "VmSwap", "VmRSS")

    @property
    def _name(self) -> str:
        return "self" if self._pid is None else str(self._pid)

    def _chosen(self, private: int) -> list[Constraint]:
        limits = [limit for limit in (self._hub, self.user_limit) if limit]
        if not limits:
            return []
        used = private + sum(map(self.private_of, self.offspring()))
        return [Constraint("chosen", limit, used) for limit in limits]

    def offspring(self) -> set[int]:
        """Descendants, without those that are spared and theirs; empty where the system does not list them."""
        try:
            found = descendants(self._proc, os.getpid() if self._pid is None else self._pid)
            for pid in self.spared():
                found -= {pid} | descendants(self._proc, pid)
        except OSError:
            return set()
        return found - {os.getpid()}

    def private_of(self, pid: int) -> int:
        """Bytes that end with a descendant; for a forked copy a walk of its page tables, 5 ms a GiB."""
        return private_bytes(self._proc, pid)

    def anonymous_of(self, pid: int) -> int:
        """Bytes of a descendant, cheaply: what a copy still shares with its parent is counted too."""
        return anonymous_bytes(self._proc, pid)


class PortableGauge:
    """The same where there is no /proc: nothing is known of data segments and descendants."""

    def __init__(self) -> None:
        from memkit.memory.portable import PortableSource

        self._source = PortableSource()
        self.user_limit: int | None = None

    def read(self) -> Reading:
        """Raises ReadingError."""
        process, machine = self._source.process(), self._source.machine()
        ceilings = [Constraint("machine", machine.total, machine.total - machine.available)]
        if self.user_limit:
            ceilings.append(Constraint("chosen", self.user_limit, process.private))
        room = effective(ceilings)
        return Reading(room.available, room.limit, process.private, rss=process.rss)


def _machine(sizes: dict[str, int]) -> Constraint:
    total = sizes["MemTotal"]
    swap = min(sizes.get("SwapFree", 0), total // _SWAP_SHARE)
    return Constraint("machine", total + swap, total - sizes["MemAvailable"])
