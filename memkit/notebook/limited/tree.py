"""Control groups as folders: made, joined, emptied, removed; the only file of this package that changes them."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time

from memkit.errors import LimitError
from memkit.memory.files import read
from memkit.notebook.limited.maker import Maker

_EMPTY_SECONDS = 10.0  # a killed process with much memory takes a second or two to give it back
_PROCESSES = "cgroup.procs"  # of both versions


class Tree:
    """What the kernel offers; a test has a tree of its own with the same methods."""

    def make(self, folder: str) -> None:
        os.mkdir(folder)

    def remove(self, folder: str) -> None:
        os.rmdir(folder)

    def write(self, path: str, text: str) -> None:
        """One write, as these files want it; raises OSError."""
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    def pause(self) -> None:
        """Let killed processes end."""
        time.sleep(0.01)

    # -- made of these ---------------------------------------------------------------------------------------------

    def new(self, parent: str) -> str:
        """A fresh group below `parent`; raises OSError."""
        folder = f"{parent}/{Maker.this().new_name()}"
        self.make(folder)
        return folder

    def processes(self, folder: str) -> list[int]:
        """Who is in a group, not counting groups below it; nobody where it is gone.

        A process of a namespace that is not ours is listed as 0, which `kill` would take for all of ours.
        """
        try:
            pids = [int(pid) for pid in read(f"{folder}/{_PROCESSES}").split()]
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):  # the latter when it is removed while it is read
                return []
            raise
        return [pid for pid in pids if pid > 0]

    def move(self, pids: list[int], folder: str) -> None:
        """Put processes into a group; those that have ended meanwhile are nobody's loss. Raises OSError."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                self.write(f"{folder}/{_PROCESSES}", str(pid))

    def destroy(self, folder: str) -> None:
        """Kill everyone in a group and below, and remove it; raises LimitError where that does not succeed in 10 s."""
        deadline = time.monotonic() + _EMPTY_SECONDS
        while os.path.isdir(folder):
            for group in self._with_those_below(folder):
                self._end(group)
            if not os.path.isdir(folder):
                return
            if time.monotonic() > deadline:
                left = self.processes(folder)
                raise LimitError(f"the control group {folder} could not be removed; still in it: {left or 'nobody'}")
            self.pause()

    def sweep(self, parent: str) -> None:
        """Remove groups whose makers were killed."""
        for folder in self.boxes(parent):
            maker = Maker.of_name(os.path.basename(folder))
            if maker is not None and maker.is_dead():
                self.destroy(folder)

    def boxes(self, parent: str) -> list[str]:
        """Every box below a group, whoever made it."""
        return [entry.path for entry in os.scandir(parent) if entry.is_dir() and Maker.of_name(entry.name)]

    def _with_those_below(self, folder: str) -> list[str]:
        """Deepest first, as they have to be removed."""
        return [path for path, _, _ in os.walk(folder, topdown=False)]

    def _end(self, folder: str) -> None:
        for pid in self.processes(folder):
            if pid != os.getpid():
                with contextlib.suppress(ProcessLookupError):
                    self.kill(pid)
        with contextlib.suppress(OSError):  # busy until the last of them is gone; tried again
            self.remove(folder)
