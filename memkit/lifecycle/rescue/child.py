"""The child that waits: a copy-on-write picture of the kernel, alone with its memory, listening for the kernel's end.

It has none of the kernel's descriptors, or sockets would stay open and the next kernel could not bind its ports; a
number that was in use leads to /dev/null instead of being free, since an object that is destroyed here may still close
it. It never returns: whatever happens, it ends with `os._exit`.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_NAME = 15
_LOOK = 1.0  # seconds between two looks at the parent where there is no pidfd
_CLOSED = 10.0  # seconds that a process may take to end after its descriptors were closed
_IGNORED = ("SIGINT", "SIGHUP", "SIGQUIT", "SIGPIPE", "SIGUSR1", "SIGUSR2", "SIGTSTP", "SIGTTOU", "SIGTTIN")

SAVE = b"s"
Reason = Literal["death", "asked", "left"]

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Ears:
    """What the child listens to: the kernel's end of a pair (`line`), and its pidfd where the system has those."""

    parent: int
    line: int
    pidfd: int | None

    def wait(self) -> Reason:
        """Until the kernel has died ("death"), asks for the variables ("asked"), or is another program ("left")."""
        poller = select.poll()
        poller.register(self.line, select.POLLIN)
        if self.pidfd is not None:
            poller.register(self.pidfd, select.POLLIN)
        while True:
            ready = dict(poller.poll(None if self.pidfd is not None else _LOOK * 1000))
            if self.pidfd in ready or (self.pidfd is None and os.getppid() != self.parent):
                return "death"
            if self.line in ready:
                return "asked" if os.read(self.line, 1) == SAVE else self._closed()

    def _closed(self) -> Reason:
        """The line's other end is closed: the kernel is about to be gone, or has become another program."""
        until = time.monotonic() + _CLOSED
        while time.monotonic() < until:
            if os.getppid() != self.parent:
                return "death"
            time.sleep(0.01)
        return "left"


def live(ears: Ears, keep: Iterable[int], score: int | None, work: Callable[[Reason], None]) -> NoReturn:
    """Be the child: wait, do the work, end. `keep` are descriptors to stay open, `score` its oom_score_adj."""
    try:
        _alone({ears.line, *keep} | ({ears.pidfd} if ears.pidfd is not None else set()))
        set_score(score)
        reason = ears.wait()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # from here on an order to end may come too early
        if reason != "left":
            work(reason)
    finally:
        os._exit(0)


def _alone(keep: set[int]) -> None:
    """Be cut off from everything the kernel talks to."""
    leave_group(0)
    _be_patient()
    _be_deaf()
    gc.disable()
    gc.freeze()
    _let_go_of_descriptors(keep)
    sys.settrace(None)
    sys.setprofile(None)
    null: Any = open(os.devnull, "w")  # noqa: SIM115 - for the rest of this process
    sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = null  # type: ignore[misc]
    logging.disable()
    warnings.simplefilter("ignore")
    _no_limits()
    _name(b"memkit-rescue")


def leave_group(pid: int) -> None:
    """Put a process, 0 for this one, into a group of its own: Jupyter signals and kills the kernel's whole group.

    Parent and child both do, so that whichever comes first there is no moment in between.
    """
    with contextlib.suppress(OSError):
        os.setpgid(pid, 0)


def _be_patient() -> None:
    """Never take the processor from the kernel because of having been woken, or killed: that was half of the cost."""
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _be_deaf() -> None:
    with contextlib.suppress(ValueError, OSError):
        signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    for name in _IGNORED:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _let_go_of_descriptors(keep: set[int]) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for number in [int(name) for name in os.listdir("/proc/self/fd")]:
        if number not in keep and number != null:
            with contextlib.suppress(OSError):  # the one the listing itself used
                os.fstat(number)
                os.dup2(null, number, inheritable=number < 3)


def _no_limits() -> None:
    """The kernel may have limited its own memory; and no core files of writers."""
    import resource

    with contextlib.suppress(ValueError, OSError):
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _name(name: bytes) -> None:
    if _libc is not None:
        _libc.prctl(_PR_SET_NAME, name, 0, 0, 0)


def die_with_parent() -> None:
    """Have the system kill this process when the one that forked it ends."""
    parent = os.getppid()
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it has ended meanwhile
        os._exit(1)


def score() -> int | None:
    """This process' oom_score_adj; None where there is none."""
    try:
        with open("/proc/self/oom_score_adj") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def set_score(value: int | None) -> None:
    """Set it; where that is not permitted it stays."""
    if value is not None:
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(value))
