"""Memory of the processes that a process started, without counting shared pages twice.  Linux."""

from __future__ import annotations

import os

from memkit.memory.files import kilobytes, read

# include/linux/sched.h, PF_FORKNOEXEC: forked and still running our program, hence sharing our pages copy-on-write.
_FORKED = 0x40
_FLAGS_FIELD = 6  # proc_pid_stat(5) numbers `flags` 9th; here counted after the program's name, which may hold spaces


def descendants(proc: str, pid: int) -> set[int]:
    """Process ids of children, their children and so on; raises FileNotFoundError where the kernel lists none."""
    found: set[int] = set()
    waiting = _children(proc, pid)
    while waiting:
        child = waiting.pop()
        if child not in found:
            found.add(child)
            waiting += _children_if_alive(proc, child)
    return found


def private_bytes(proc: str, pid: int) -> int:
    """Bytes that end with a process: anonymous and shared memory, or of a forked copy only what it no longer shares.

    RssAnon of a fresh fork equals its parent's although nothing was copied. A process that has ended counts 0.
    """
    try:
        if not _is_copy(proc, pid):
            return _anonymous(proc, pid)
        return _unshared(proc, pid)
    except (FileNotFoundError, ProcessLookupError):
        return 0


def anonymous_bytes(proc: str, pid: int) -> int:
    """Bytes of anonymous and shared memory, those that a forked copy shares with its parent included; ended: 0."""
    try:
        return _anonymous(proc, pid)
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _children(proc: str, pid: int) -> list[int]:
    children: list[int] = []
    for thread in os.listdir(f"{proc}/{pid}/task"):
        children += map(int, read(f"{proc}/{pid}/task/{thread}/children").split())
    return children


def _children_if_alive(proc: str, pid: int) -> list[int]:
    try:
        return _children(proc, pid)
    except (FileNotFoundError, ProcessLookupError):
        return []


def _is_copy(proc: str, pid: int) -> bool:
    after_name = read(f"{proc}/{pid}/stat").rpartition(b") ")[2].split()
    return bool(int(after_name[_FLAGS_FIELD]) & _FORKED)


def _anonymous(proc: str, pid: int) -> int:
    sizes = kilobytes(read(f"{proc}/{pid}/status"), "RssAnon", "RssShmem")
    return sizes.get("RssAnon", 0) + sizes.get("RssShmem", 0)


def _unshared(proc: str, pid: int) -> int:
    try:
        sizes = kilobytes(read(f"{proc}/{pid}/smaps_rollup"), "Private_Clean", "Private_Dirty")
    except (FileNotFoundError, PermissionError):
        return _anonymous(proc, pid)  # an upper bound: too careful rather than too late
    return sizes.get("Private_Clean", 0) + sizes.get("Private_Dirty", 0)
