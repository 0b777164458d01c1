"""Limiting memory where no control group can be had: RLIMIT_DATA, for each process by itself.

RLIMIT_DATA and not RLIMIT_AS, which counts file mappings and so refuses libraries and large files that need no memory;
not RLIMIT_RSS, which Linux ignores since 2.4. Both its values are lowered: memkit's guard moves the soft one below the
hard one as it always does, nobody but root raises the hard one, and what the kernel starts inherits both.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from memkit.errors import LimitError
from memkit.memory.descendants import descendants, private_bytes
from memkit.memory.files import kilobytes, read
from memkit.memory.limits import HUB_VARIABLE
from memkit.notebook.limited.enter import capped
from memkit.notebook.limited.limit import Box, uninterrupted
from memkit.units import format_bytes

_SESSION_FIELD = 3  # proc_pid_stat(5) numbers `session` 6th; here counted after the program's name
NOTES = (
    "the limit is for each process by itself and counts what it has asked for, used or not; "
    "shared memory and page cache are not counted, and an allocation that does not fit fails: nothing is killed",
)


class Rlimit:
    """RLIMIT_DATA, hard and soft, and MEM_LIMIT, by which memkit in the kernel knows the size of its machine."""

    name = "rlimit"

    def __init__(self, root: Path = Path("/"), platform: str = sys.platform) -> None:
        self._root, self._platform = root, platform

    def available(self) -> str | None:
        """Linux only: elsewhere the limit exists and is not held for what is allocated by mmap."""
        return None if self._platform == "linux" else "only Linux holds RLIMIT_DATA for all private memory"

    @contextlib.contextmanager
    def box(self, size: int) -> Iterator[Box]:
        """See `limit.Limit.box`. A process that has made itself a session of its own is not found again."""
        reason = self.available() or _too_much(size)
        if reason is not None:
            raise LimitError(reason)
        box = RlimitBox(size, self._root)
        try:
            yield box
        finally:
            with uninterrupted():
                box.end()


class RlimitBox:
    """See `limit.Box`. Its figures are read from outside, so a spike between two looks may be missed."""

    notes = NOTES
    measure = "private memory of all processes together, looked at a few times a second"

    def __init__(self, size: int, root: Path) -> None:
        self.prefix = capped(size)
        self.environ: Mapping[str, str] = {HUB_VARIABLE: str(size)}
        self._proc = f"{str(root).rstrip('/')}/proc"
        self._pid: int | None = None
        self._highest: int | None = None
        self._held: int | None = None

    def started(self, pid: int) -> None:
        self._pid = pid

    def look(self) -> None:
        if self._pid is None:
            return
        try:
            status = kilobytes(read(f"{self._proc}/{self._pid}/status"), "VmHWM", "RssFile", "VmData")
            others = sum(private_bytes(self._proc, pid) for pid in descendants(self._proc, self._pid))
            self._held = status["VmData"]
            self._highest = max(self._highest or 0, status["VmHWM"] - status["RssFile"] + others)
        except (OSError, KeyError):
            return  # it has ended, or is about to

    def held(self) -> int | None:
        self.look()
        return self._held

    def peak(self) -> int | None:
        self.look()
        return self._highest

    def kills(self) -> int | None:
        return None

    def end(self) -> None:
        """Kill what is left of the kernel's session; Jupyter starts every kernel in one of its own."""
        for pid in _session(self._proc, self._pid) if self._pid else ():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _session(proc: str, leader: int) -> list[int]:
    """Processes of a session other than our own."""
    found = []
    for pid in (int(name) for name in os.listdir(proc) if name.isdecimal()):
        try:
            fields = read(f"{proc}/{pid}/stat").rpartition(b") ")[2].split()
        except OSError:
            continue  # it has ended
        if int(fields[_SESSION_FIELD]) == leader != os.getsid(0):
            found.append(pid)
    return found


def _too_much(size: int) -> str | None:
    """Why a process that starts from this one cannot have so much."""
    if os.name == "nt":
        return None
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY and hard < size:
        return f"this process itself is limited to {format_bytes(hard)} (RLIMIT_DATA)"
    return None
