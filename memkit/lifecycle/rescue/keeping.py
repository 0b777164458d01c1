"""The kernel's side: one child at most, taken anew, asked to save, killed and reaped by exactly its process id."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from memkit.errors import RescueError
from memkit.lifecycle.rescue import child as children
from memkit.lifecycle.rescue.child import Ears, Reason

# The system's choice when memory is out: the kernel before its child. Measured: 600 outweighs a child of any size.
_RAISE = 600
_MOST = 1000
_REAP = 2.0  # seconds


@dataclass(frozen=True, slots=True)
class Child:
    """A living picture: its process, our end of the line to it, when it was taken, and what that cost in seconds.

    `cost` is what the kernel's user waited, `busy` the processor time of that.
    """

    pid: int
    line: int
    taken: float
    cost: float
    busy: float


class Keeping:
    """Holds at most one child. Main thread only. `work(reason, line)` is what a child does in the end."""

    def __init__(self, work: Callable[[Reason, int], None]) -> None:
        self._work = work
        self._owner = os.getpid()
        self._pidfd = _pidfd()
        self._score = children.score()
        self._unreaped: list[int] = []
        self.child: Child | None = None
        _all.add(self)

    def take(self, keep: Iterable[int]) -> Child:
        """Fork a new child, then end the old one; raises OSError, with the old one in place, where there is no memory.

        `keep` are descriptors that stay open in the child.
        """
        began, worked = time.perf_counter(), time.thread_time()
        self._raise_score()
        ours, theirs = (end.detach() for end in socket.socketpair())
        ears = Ears(os.getpid(), theirs, self._pidfd)
        try:
            with _quiet():
                pid = os.fork()
        except BaseException:
            os.close(ours)
            os.close(theirs)
            raise
        if pid == 0:
            children.live(ears, keep, self._score, lambda reason: self._work(reason, theirs))
        children.leave_group(pid)
        os.close(theirs)
        self._end()
        self.child = Child(pid, ours, time.time(), time.perf_counter() - began, time.thread_time() - worked)
        return self.child

    def save_now(self, timeout: float) -> str:
        """Have the child save and leave; answers its folder. Raises RescueError where it says nothing in time."""
        if self.child is None:
            raise RescueError("there is no picture of the variables to save")
        child = self.child
        try:
            os.write(child.line, children.SAVE)
            answer = _receive(child.line, timeout)
        finally:
            self.drop()
            self.reap(_REAP)  # its lock on the folder goes with it
        if not answer.startswith("/"):
            raise RescueError(f"the variables could not be saved early: {answer or 'no answer in time'}")
        return answer

    def drop(self) -> None:
        """End the child and be as likely a victim as before."""
        self._end()
        children.set_score(self._score)

    def close(self) -> None:
        """Drop the child and let go of the descriptors; a no-op in a forked child."""
        if os.getpid() != self._owner:
            return
        self.drop()
        self.reap(_REAP)
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def _end(self) -> None:
        if self.child is None or os.getpid() != self._owner:
            return
        child, self.child = self.child, None
        os.close(child.line)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
        self._unreaped.append(child.pid)
        self.reap()

    def alive(self) -> bool:
        """Whether the child is there; one that was killed from outside is reaped."""
        if self.child is not None and not _is_running(self.child.pid):
            os.close(self.child.line)
            self.child = None
        return self.child is not None

    def reap(self, timeout: float = 0.0) -> None:
        """Take in the ends of children: their own, never another's; waits at most this many seconds."""
        until = time.monotonic() + timeout
        while True:
            self._unreaped = [pid for pid in self._unreaped if _is_running(pid)]
            if not self._unreaped or time.monotonic() >= until:
                return
            time.sleep(0.001)

    def _raise_score(self) -> None:
        if self._score is not None and self.child is None:
            children.set_score(min(_MOST, self._score + _RAISE))

    def forget(self) -> None:
        """In any forked child of the kernel: the line is the kernel's alone."""
        if self.child is not None:
            with contextlib.suppress(OSError):
                os.close(self.child.line)
        self.child = None
        self._unreaped = []


def _is_running(pid: int) -> bool:
    """Whether a child of ours has not ended yet; its end is taken in."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == 0
    except ChildProcessError:  # somebody waits for every child, or has told the system not to keep their ends
        return False


def _pidfd() -> int | None:
    try:
        return os.pidfd_open(os.getpid()) if hasattr(os, "pidfd_open") else None
    except OSError:  # a kernel before 5.3, or one that forbids it
        return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Python >= 3.12 warns of forking with threads; the child touches none of their locks. Only that is silenced.

    `warnings.catch_warnings` would make every "once per place" warning of the process appear again.
    """
    rules: Any = warnings.filters
    rule = ("ignore", None, DeprecationWarning, None, 0)
    rules.insert(0, rule)
    try:
        yield
    finally:
        rules.remove(rule)


def _receive(line: int, timeout: float) -> str:
    until, data = time.monotonic() + timeout, b""
    poller = select.poll()
    poller.register(line, select.POLLIN)
    while not data.endswith(b"\n"):
        left = until - time.monotonic()
        if left <= 0 or not poller.poll(left * 1000):
            return ""
        part = os.read(line, 4096)
        if not part:
            break
        data += part
    return data.decode().strip()


_all: weakref.WeakSet[Keeping] = weakref.WeakSet()


def _forget_all() -> None:
    """A child that another library forks must not hold the line open, or the kernel's end would not be heard."""
    for keeping in list(_all):
        keeping.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
