"""Peaks of cells read from outside the kernel: of one without memkit, and of a cell that its kernel did not survive."""

from __future__ import annotations

import contextlib
import dataclasses
import os

from memkit.memory.files import kilobytes, read
from memkit.notebook.report.result import Progress


class Outside:
    """Follows one process: told which cell runs, it reads the process's high-water mark. Linux; elsewhere it has none.

    `began` once there was a cell. `resets`: the mark is set back at each cell, which memkit in the kernel does itself.
    """

    def __init__(self, resets: bool, proc: str = "/proc") -> None:
        self.peaks: dict[int, int] = {}  # bytes by the cell's number
        self._resets, self._proc = resets, proc
        self._pid: int | None = None
        self._cell: int | None = None
        self.began = False

    def started(self, pid: int) -> None:
        self._pid = pid

    def follow(self, progress: Progress) -> Progress:
        """The same progress, with a peak where the kernel has told none."""
        self.began, number = True, progress.cell.number
        if number != self._cell:
            self._cell = number
            if self._resets:
                self._reset()
        self.look()
        if not progress.running:
            self._cell = None
        return dataclasses.replace(progress, peak=progress.peak or self.peaks.get(number))

    def look(self) -> None:
        """Read the mark for the cell that runs."""
        if self._pid is None or self._cell is None:
            return
        try:
            mark = kilobytes(read(f"{self._proc}/{self._pid}/status"), "VmHWM").get("VmHWM", 0)
        except OSError:
            return
        self.peaks[self._cell] = max(mark, self.peaks.get(self._cell, 0))

    def _reset(self) -> None:
        with contextlib.suppress(OSError):  # not Linux, hidden or gone: the mark is then that of all cells so far
            descriptor = os.open(f"{self._proc}/{self._pid}/clear_refs", os.O_WRONLY)
            try:
                os.write(descriptor, b"5")  # proc_pid_clear_refs(5)
            finally:
                os.close(descriptor)
