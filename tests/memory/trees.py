"""Pretended /proc, /sys and psutil, for readings on machines that are not this one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from memkit.units import GIB, KIB, MIB

STATUS = {"VmSize": 900, "VmHWM": 500, "VmRSS": 400, "RssAnon": 250, "RssFile": 140, "RssShmem": 10, "VmSwap": 30}
MEMINFO = {"MemTotal": 8 * 1024, "MemFree": 1024, "MemAvailable": 6 * 1024, "SwapTotal": 2048, "SwapFree": 1536}
UNLIMITED_V1 = 9223372036854771712


def put(root: Path, path: str, text: str | int) -> None:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n" if isinstance(text, int) else text)


def lines(mebibytes: Mapping[str, int]) -> str:
    return "".join(f"{name}:\t{count * 1024:>8} kB\n" for name, count in mebibytes.items())


def machine(root: Path, *, status: Mapping[str, int] = STATUS, meminfo: Mapping[str, int] = MEMINFO) -> Path:
    """A Linux of 8 GiB, 6 of them available, with a process of 400 MiB, in no control group; figures in MiB."""
    put(root, "proc/self/status", "Name:\tpython\n" + lines(status) + "Threads:\t1\n")
    put(root, "proc/meminfo", lines(meminfo))
    put(root, "proc/self/cgroup", "")
    put(root, "proc/self/mountinfo", "")
    (root / "proc/self/fd").mkdir(exist_ok=True)
    return root


def join(root: Path, *memberships: str) -> None:
    """Put the process into groups: lines of /proc/self/cgroup."""
    put(root, "proc/self/cgroup", "".join(f"{line}\n" for line in memberships))


def mount(root: Path, *mounts: tuple[str, str, str]) -> None:
    """Mounts of (kind "v1" or "v2", what is mounted, where): lines of /proc/self/mountinfo."""
    kinds = {"v1": "cgroup cgroup rw,memory", "v2": "cgroup2 cgroup2 rw,nsdelegate"}
    other = "20 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n21 20 0:20 / /proc rw - proc proc rw\n"
    text = [
        f"{i} 20 0:{i} {what} {where} rw shared:9 - {kinds[kind]}\n" for i, (kind, what, where) in enumerate(mounts, 30)
    ]
    put(root, "proc/self/mountinfo", other + "".join(text))


def group_v2(
    root: Path, folder: str, *, limit: int | str, used: int = 0, file: int = 0, shmem: int = 0, high: int | str = "max"
) -> None:
    put(root, f"{folder}/memory.max", f"{limit}\n")
    put(root, f"{folder}/memory.high", f"{high}\n")
    put(root, f"{folder}/memory.current", used)
    put(
        root, f"{folder}/memory.stat", f"anon 1\nfile {file}\nkernel 5\nshmem {shmem}\nfile_mapped 7\ninactive_file 3\n"
    )


def group_v1(
    root: Path,
    folder: str,
    *,
    limit: int = UNLIMITED_V1,
    used: int = 0,
    cache: int = 0,
    shmem: int = 0,
    above: int = UNLIMITED_V1,
) -> None:
    put(root, f"{folder}/memory.limit_in_bytes", limit)
    put(root, f"{folder}/memory.use_hierarchy", 1)
    put(root, f"{folder}/memory.usage_in_bytes", used)
    own = f"cache 1\nrss 1\nshmem 0\nhierarchical_memory_limit {min(limit, above)}\n"
    put(root, f"{folder}/memory.stat", own + f"total_cache {cache}\ntotal_rss 1\ntotal_shmem {shmem}\n")


def process(
    root: Path, pid: int, *, anonymous: int, children: str = "", flags: int = 0, private: int | None = None
) -> None:
    """Another process, with its sizes in bytes; `private` is what it does not share."""
    folder = f"proc/{pid}"
    put(root, f"{folder}/task/{pid}/children", children)
    put(root, f"{folder}/stat", f"{pid} (a ) name) S 1 1 1 0 -1 {flags} 0 0 0\n")
    put(root, f"{folder}/status", f"Name:\tx\nRssAnon:\t{anonymous // KIB} kB\nRssShmem:\t0 kB\n")
    if private is not None:
        put(root, f"{folder}/smaps_rollup", f"0-f ---p 0 00:00 0  [rollup]\nPrivate_Dirty:  {private // KIB} kB\n")


class FakePsutil:
    """psutil of a machine of 16 GiB, 4 of them available."""

    class Error(Exception):
        pass

    def __init__(self, fails: bool = False, swap_fails: bool = False, num_fds: int | None = 7, **info: Any) -> None:
        self._info = SimpleNamespace(**({"rss": 300 * MIB, "vms": 4 * GIB} | info))
        self._fails, self._swap_fails, self._num_fds = fails, swap_fails, num_fds

    def Process(self, pid: int | None = None) -> Any:
        if self._fails:
            raise self.Error("no such process")
        functions: dict[str, Any] = {"memory_info": lambda: self._info}
        if self._num_fds is not None:
            functions["num_fds"] = lambda: self._num_fds
        return SimpleNamespace(**functions)

    def virtual_memory(self) -> Any:
        return SimpleNamespace(total=16 * GIB, available=4 * GIB)

    def swap_memory(self) -> Any:
        if self._swap_fails:
            raise RuntimeError("sysctl failed")
        return SimpleNamespace(total=2 * GIB, used=GIB)
