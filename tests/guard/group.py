"""A memory control group (v1) with a limit of its own, for a kernel and all its children."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from pathlib import Path

_NUMBERS = itertools.count()
_CLEARED_SECONDS = 10.0


class NoGroupError(Exception):
    """No control group with a limit can be made here; the message says why."""


def own_folder() -> Path:
    """The folder of the memory group this process is in; raises NoGroupError."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError as error:
        raise NoGroupError(f"no control groups here: {error}") from error
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return Path("/sys/fs/cgroup/memory") / path.lstrip("/")
    raise NoGroupError("no cgroup v1 memory controller here")


class Group:
    """A new group below our own, without swap; `remove` ends everything in it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.folder = own_folder() / f"memkit-battery-{os.getpid()}-{next(_NUMBERS)}"
        try:
            self.folder.mkdir()
        except OSError as error:
            raise NoGroupError(f"a control group cannot be made here: {error}") from error
        try:
            self._write("memory.limit_in_bytes", limit)
            with contextlib.suppress(FileNotFoundError):  # where swap is not accounted there is no such file
                self._write("memory.memsw.limit_in_bytes", limit)
        except OSError as error:
            self.folder.rmdir()
            raise NoGroupError(f"a control group cannot be limited here: {error}") from error

    @property
    def procs(self) -> Path:
        """The file into which a process writes itself to enter."""
        return self.folder / "cgroup.procs"

    def peak(self) -> int:
        """Most bytes in use since `mark`, page cache included."""
        return int((self.folder / "memory.max_usage_in_bytes").read_text())

    def mark(self) -> None:
        """Begin a new peak."""
        self._write("memory.max_usage_in_bytes", 0)

    def oom_kills(self) -> int:
        """How many processes in it the kernel's OOM killer has ended."""
        fields = (line.split() for line in (self.folder / "memory.oom_control").read_text().splitlines())
        return next((int(count) for name, count in fields if name == "oom_kill"), 0)

    def members(self) -> list[int]:
        """Process ids of everything in it."""
        return [int(pid) for pid in self.procs.read_text().split()]

    def remove(self) -> None:
        """End everything in it, and take it away."""
        deadline = time.monotonic() + _CLEARED_SECONDS
        while members := self.members():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.folder}: {members} do not end")
            for pid in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        self._rmdir(deadline)

    def _rmdir(self, deadline: float) -> None:
        while True:
            try:
                return self.folder.rmdir()
            except OSError:  # busy until the last exiting process is reaped
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _write(self, name: str, value: int) -> None:
        (self.folder / name).write_text(str(value))
