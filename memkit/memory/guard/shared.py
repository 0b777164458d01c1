"""Shared memory that is promised and not taken yet: no limit on data segments counts it, and no allocation of it fails.

It is only taken when it is touched; then the process is killed for lack of memory, or of room on /dev/shm (SIGBUS).
"""

from __future__ import annotations

import os
import re

from memkit.memory.files import read

_LARGE = 32 * 1024 * 1024  # walking the page tables takes 11-19 ms with torch loaded: not for less
# proc_pid_smaps(5). Anonymous shared memory is shown as the deleted file /dev/zero.
_REGION = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) rw-s [0-9a-f]+ [0-9a-f:]+ \d+ +(/dev/zero|/dev/shm/)", re.MULTILINE)
_RSS = re.compile(rb"^Rss: +(\d+) kB$", re.MULTILINE)


def promised(wanted: int, smaps: str = "/proc/self/smaps") -> int:
    """Bytes of shared memory that this process has mapped and not touched; 0 where `wanted` is too little to ask."""
    if wanted < _LARGE:
        return 0
    try:
        regions = read(smaps)
    except OSError:
        return 0
    return sum(_untouched(regions, header) for header in _REGION.finditer(regions))


def _untouched(regions: bytes, header: re.Match[bytes]) -> int:
    touched = _RSS.search(regions, header.end())
    size = int(header[2], 16) - int(header[1], 16)
    return max(0, size - int(touched[1]) * 1024) if touched is not None else 0


def room_on(folder: str) -> int | None:
    """Bytes that files in a folder can still take; None where it cannot be asked."""
    try:
        room = os.statvfs(folder)
    except (OSError, AttributeError):
        return None
    return room.f_bavail * room.f_frsize
