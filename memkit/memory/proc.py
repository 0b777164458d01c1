"""Linux: memory of the process and the machine from /proc and /sys.  Other processes than `pid` are never changed."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from memkit.errors import ReadingError
from memkit.memory import cgroup
from memkit.memory.descendants import descendants, private_bytes
from memkit.memory.files import kilobytes, number, read
from memkit.memory.source import Machine, Process, Zram

if TYPE_CHECKING:
    from pathlib import Path

    from memkit.memory.limits import Constraint

_STATUS = ("VmRSS", "VmSize", "VmHWM", "VmSwap", "RssAnon", "RssFile", "RssShmem")
_MEMINFO = ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree")
_PRESSURE = re.compile(rb"^(some|full) avg10=([\d.]+)", re.MULTILINE)


class LinuxSource:
    """Reads below `root`; `pid` None is the process that asks, also after a fork. Any thread may call it."""

    def __init__(self, root: Path | str, pid: int | None = None) -> None:
        self._root = str(root).rstrip("/")
        self._proc = f"{self._root}/proc"
        self._pid = pid
        self._groups: tuple[bytes, tuple[cgroup.Group, ...]] | None = None
        self._childless: str | None = None

    @property
    def _own(self) -> str:
        return f"{self._proc}/{'self' if self._pid is None else self._pid}"

    def exists(self) -> bool:
        """Whether this is a Linux with /proc mounted."""
        return os.path.exists(f"{self._own}/status")

    def process(self) -> Process:
        path = f"{self._own}/status"
        try:
            return _process(kilobytes(read(path), *_STATUS))
        except (OSError, ValueError, KeyError) as error:
            raise ReadingError(f"the memory of this process cannot be read from {path}: {error!r}") from error

    def machine(self) -> Machine:
        path = f"{self._proc}/meminfo"
        try:
            sizes = kilobytes(read(path), *_MEMINFO)
            total, available = sizes["MemTotal"], sizes["MemAvailable"]
        except (OSError, ValueError, KeyError) as error:
            raise ReadingError(f"the memory of this machine cannot be read from {path}: {error!r}") from error
        swap = sizes.get("SwapTotal")
        some, full = self._stalls()
        return Machine(
            total, available, swap, None if swap is None else swap - sizes.get("SwapFree", 0), self._zram(), some, full
        )

    def groups(self, total: int) -> tuple[Constraint, ...]:
        constraints = (cgroup.constraint(group, total) for group in self._members())
        return tuple(constraint for constraint in constraints if constraint is not None)

    def offspring(self) -> int:
        pid = os.getpid() if self._pid is None else self._pid
        try:
            children = descendants(self._proc, pid)
        except OSError as error:
            self._childless = f"processes started from here are not counted: {error}"
            return 0
        self._childless = None
        return sum(private_bytes(self._proc, child) for child in children)

    def open_files(self) -> int | None:
        try:
            count = len(os.listdir(f"{self._own}/fd"))
        except OSError:
            return None
        return count - 1 if self._pid is None else count  # listing our own folder opens one more

    @property
    def notes(self) -> tuple[str, ...]:
        members = self._groups[1] if self._groups else ()
        unread = (f"the limit of {group.folder} may not be read" for group in members if cgroup.hidden(group))
        return (*unread, *([self._childless] if self._childless else []))

    def _members(self) -> tuple[cgroup.Group, ...]:
        """Looked up again only when the process was moved to another group."""
        try:
            membership = read(f"{self._own}/cgroup")
        except FileNotFoundError:
            return ()  # a kernel without control groups
        except OSError as error:
            raise ReadingError(f"the control groups of this process cannot be read: {error}") from error
        known = self._groups
        if known is None or known[0] != membership:
            known = self._groups = membership, self._find_groups(membership)
        return known[1]

    def _find_groups(self, membership: bytes) -> tuple[cgroup.Group, ...]:
        try:
            return cgroup.groups(membership, read(f"{self._own}/mountinfo"), self._root)
        except (OSError, ValueError, IndexError) as error:
            raise ReadingError(f"the control groups of this process cannot be found: {error!r}") from error

    def _stalls(self) -> tuple[float | None, float | None]:
        try:
            shares = dict(_PRESSURE.findall(read(f"{self._proc}/pressure/memory")))
        except OSError:
            return None, None  # not built in, or switched off at boot
        return _share(shares.get(b"some")), _share(shares.get(b"full"))

    def _zram(self) -> Zram | None:
        try:
            disks = [name for name in os.listdir(f"{self._root}/sys/block") if name.startswith("zram")]
            parts = [self._zram_disk(name) for name in disks if number(f"{self._root}/sys/block/{name}/disksize")]
        except (OSError, ValueError, IndexError):
            return None
        return Zram(sum(part[0] for part in parts), sum(part[1] for part in parts)) if parts else None

    def _zram_disk(self, name: str) -> tuple[int, int]:
        # Documentation/admin-guide/blockdev/zram.rst: orig_data_size compr_data_size mem_used_total ...
        columns = read(f"{self._root}/sys/block/{name}/mm_stat").split()
        return int(columns[0]), int(columns[2])


def _process(sizes: dict[str, int]) -> Process:
    anonymous = sizes["RssAnon"] + sizes.get("RssShmem", 0) if "RssAnon" in sizes else None
    return Process(
        rss=sizes["VmRSS"],
        vms=sizes["VmSize"],
        anonymous=anonymous,
        file_backed=sizes.get("RssFile"),
        swap=sizes.get("VmSwap"),
        peak=sizes.get("VmHWM"),
    )


def _share(percent: bytes | None) -> float | None:
    return None if percent is None else float(percent) / 100
