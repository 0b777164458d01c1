"""The watch as a process: `python -I -S -c BOOT ROOT PID PAGE SIGNAL SOFT HARD`, 13 MiB, started by `companion`.

It hears of a new cell through its standard input, speaks through its standard output, and ends with the kernel, with
the thread that started it, or when its input is closed: whichever comes first.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import select
import signal
import sys
import time
from typing import Any

from memkit.errors import ReadingError
from memkit.memory.files import read
from memkit.memory.guard.datalimit import set_for
from memkit.memory.guard.gauge import Gauge, Reading
from memkit.memory.guard.page import Page
from memkit.memory.guard.untouched import Untouched
from memkit.memory.guard.watch import Watch

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_MOST_FROZEN = 2.0  # seconds; taking a few GiB of page tables apart needs a tenth of one
_FIRST_TO_GO = b"1000"  # proc_pid_oom_score_adj(5)


class Kernel:
    """Another process, watched. `before` is its RLIMIT_DATA without memkit."""

    def __init__(self, pid: int, page: Page, number: int, before: tuple[int, int]) -> None:
        self._pid, self._page, self._number, self._before = pid, page, number, before
        self._gauge = Gauge(pid=pid)
        self._gauge.spared = lambda: {page.spared} - {0}
        self._untouched = Untouched(pid, reserves=lambda: page.reserves)

    def read(self) -> Reading:
        self._gauge.user_limit = self._page.user_limit or None
        return self._untouched.follow(self._gauge.read(), self._gauge.read)

    def offspring(self) -> set[int]:
        return self._gauge.offspring()

    def anonymous_of(self, pid: int) -> int:
        return self._gauge.anonymous_of(pid)

    def private_of(self, pid: int) -> int:
        return self._gauge.private_of(pid)

    def set_limit(self, soft: int | None) -> None:
        try:
            set_for(self._pid, self._before[0] if soft is None else soft, self._before)
            self._page.refused = 0
        except ProcessLookupError:
            raise
        except OSError:  # a container that forbids prlimit: the kernel still sets it at the beginning of each cell
            self._page.refused = 1

    def signal(self) -> None:
        os.kill(self._pid, self._number)

    def expose(self, pid: int) -> None:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/oom_score_adj", "wb", buffering=0) as file:
            file.write(_FIRST_TO_GO)  # gone, or another user's: then it is not ours to judge

    def stop(self, pid: int, *, now: bool) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL if now else signal.SIGTERM)

    def freeze(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._pid, signal.SIGCONT)

    def end(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            os.kill(pid, signal.SIGKILL)
            until = time.monotonic() + _MOST_FROZEN
            # proc_pid_stat(5): a zombie has given its memory back; it is its parent's, which stands still, to bury.
            while time.monotonic() < until and b") Z" not in read(f"/proc/{pid}/stat"):
                time.sleep(0.001)

    def tell(self, line: str) -> None:
        os.write(1, line.encode() + b"\n")


def main(arguments: list[str]) -> None:
    """Watch until the kernel is gone."""
    pid, fd, number, soft, hard = map(int, arguments)
    _end_with(pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the kernel: Jupyter interrupts the whole group
    page = Page(fd)
    watch = Watch(page, Kernel(pid, page, number, (soft, hard)))
    gc.collect()
    gc.freeze()
    with contextlib.suppress(ReadingError, ProcessLookupError, BrokenPipeError):
        _watch(watch, _ends(pid))


def _end_with(pid: int) -> None:
    with contextlib.suppress(AttributeError, OSError):
        # Also ends a watcher that is stopped, or hangs: SIGKILL comes from the system.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != pid:
        sys.exit()


def _ends(pid: int) -> Any:
    """Ready to read when there is a message, or when the kernel has ended, whoever else holds its end of the pipe."""
    poll = select.poll()
    poll.register(0, select.POLLIN | select.POLLHUP)
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):
            poll.register(os.pidfd_open(pid), select.POLLIN)
    return poll


def _watch(watch: Watch, poll: Any) -> None:
    while True:
        for fd, _ in poll.poll(watch.turn() * 1000):
            if fd != 0 or not os.read(0, 4096):
                return


if __name__ == "__main__":
    main(sys.argv[1:])
