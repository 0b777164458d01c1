"""Limits of control groups, version 1, 2 and both at once, as seen from inside or outside a container.

Used bytes follow one rule, `usage - (cache - shmem)`: page cache can be dropped, shared memory and tmpfs cannot.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from memkit.errors import ReadingError
from memkit.memory.files import number, read
from memkit.memory.limits import Constraint

if TYPE_CHECKING:
    from collections.abc import Iterator

Version = Literal[1, 2]
_NAME = "cgroup"
# The group is gone, has no such controller, or hides its files from us.
_ABSENT = (FileNotFoundError, NotADirectoryError, PermissionError)
_STAT = re.compile(
    rb"^(file|hierarchical_memory_limit|(?:total_)?(?:cache|shmem|active_file|inactive_file)) (\d+)$", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Group:
    """One control group's folder."""

    version: Version
    folder: str


@dataclass(frozen=True, slots=True)
class _Mount:
    version: Version
    root: str
    point: str


def groups(membership: bytes, mountinfo: bytes, root: str) -> tuple[Group, ...]:
    """The memory groups a process is in, from its own up to the highest one visible.

    Reads /proc/PID/cgroup and /proc/PID/mountinfo as given, and looks for the folders below `root` ("" for "/").
    """
    mounts = tuple(_mounts(os.fsdecode(mountinfo)))
    return tuple(
        Group(version, folder)
        for version, path in _paths(os.fsdecode(membership))
        for folder in _chain(version, path, [mount for mount in mounts if mount.version == version], root)
    )


def constraint(group: Group, total: int) -> Constraint | None:
    """What a group allows, or None where it allows `total` bytes or more; raises ReadingError."""
    try:
        return _read_v2(group.folder, total) if group.version == 2 else _read_v1(group.folder, total)
    except (OSError, ValueError, KeyError) as error:
        raise ReadingError(f"the memory limit of the control group {group.folder} cannot be read: {error!r}") from error


def hidden(group: Group) -> bool:
    """Whether the group's limit exists but may not be read."""
    name = "memory.max" if group.version == 2 else "memory.limit_in_bytes"
    path = f"{group.folder}/{name}"
    return os.path.exists(path) and not os.access(path, os.R_OK)


def _paths(membership: str) -> Iterator[tuple[Version, str]]:
    for line in membership.splitlines():
        identifier, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            yield 1, path
        elif identifier == "0" and not controllers:
            yield 2, path


def _mounts(mountinfo: str) -> Iterator[_Mount]:
    # proc_pid_mountinfo(5): id parent dev ROOT POINT options [optional...] - TYPE source SUPER
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        place, kind = before.split(" "), after.split(" ")
        if kind[0] == "cgroup2":
            yield _Mount(2, _unescape(place[3]), _unescape(place[4]))
        elif kind[0] == "cgroup" and "memory" in kind[-1].split(","):
            yield _Mount(1, _unescape(place[3]), _unescape(place[4]))


def _unescape(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def _chain(version: Version, path: str, mounts: list[_Mount], root: str) -> list[str]:
    for mount in mounts:
        below = _below(path, mount.root)
        if below is not None and os.path.isdir(f"{root}{mount.point}/{below}"):
            return list(_upwards(version, f"{root}{mount.point}", below))
    # In a container the path may be the host's while the mount shows only the container's own group, at its top.
    return [f"{root}{mounts[0].point}"] if mounts else []


def _below(path: str, mount_root: str) -> str | None:
    """The path relative to what is mounted; None where it lies outside (".." = outside of our namespace)."""
    if ".." in path.split("/"):
        return None
    if path == mount_root:
        return ""
    top = mount_root.rstrip("/") + "/"
    return path[len(top) :].strip("/") if path.startswith(top) else None


def _upwards(version: Version, top: str, below: str) -> Iterator[str]:
    folder = f"{top}/{below}".rstrip("/")
    yield folder
    while folder != top:
        folder = folder.rpartition("/")[0]
        if version == 1 and not _counts_children(folder):
            return
        yield folder


def _counts_children(folder: str) -> bool:
    """A version 1 group may leave its children alone (before Linux 5.11); its limit is then not ours."""
    try:
        return number(f"{folder}/memory.use_hierarchy") != 0
    except (OSError, ValueError):
        return True


def _read_v2(folder: str, total: int) -> Constraint | None:
    limit = min(_ceiling(f"{folder}/memory.max", total), _ceiling(f"{folder}/memory.high", total))
    if limit >= total:
        return None
    stat = _statistics(folder)
    return Constraint(_NAME, limit, number(f"{folder}/memory.current") - (stat["file"] - stat["shmem"]))


def _read_v1(folder: str, total: int) -> Constraint | None:
    own = _ceiling(f"{folder}/memory.limit_in_bytes", total)
    try:
        stat = _statistics(folder)
    except _ABSENT:
        if own >= total:
            return None
        raise
    # Also tells of ancestors above what a container may see; "unlimited" is a number near 2**63.
    limit = min(own, stat.get("hierarchical_memory_limit", total))
    if limit >= total:
        return None
    return Constraint(_NAME, limit, number(f"{folder}/memory.usage_in_bytes") - _cache_v1(stat))


def _cache_v1(stat: dict[str, int]) -> int:
    prefix = "total_" if "total_cache" in stat else ""
    if f"{prefix}shmem" in stat:
        return stat[f"{prefix}cache"] - stat[f"{prefix}shmem"]
    # Kernels before 4.20 do not name shared memory; it lies on the anonymous lists, so the file lists are the rest.
    return stat[f"{prefix}active_file"] + stat[f"{prefix}inactive_file"]


def _ceiling(path: str, total: int) -> int:
    try:
        text = read(path).strip()
    except _ABSENT:
        return total
    return total if text == b"max" else min(total, int(text))


def _statistics(folder: str) -> dict[str, int]:
    return {name.decode(): int(value) for name, value in _STAT.findall(read(f"{folder}/memory.stat"))}
