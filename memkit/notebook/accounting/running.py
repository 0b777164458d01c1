"""Which cells are under way, in all threads, and the highest memory while each of them runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memkit.lifecycle.resource import Resource
from memkit.memory.high_water import HighWater
from memkit.memory.portable import PortableSource
from memkit.memory.proc import LinuxSource
from memkit.memory.source import Process

_KERNEL = "kernel high-water mark"


@dataclass(slots=True, eq=False, repr=False)
class Scope:
    """One execution under way; they nest when a cell runs another, and overlap when a subshell runs one.

    `info` is IPython's, None for silent requests, which are not measured. What is appended to `on_end` is called
    without arguments when the cell has ended, however it did; `on_record` gets the CellRecord where there is one.
    """

    thread: int
    depth: int = 0
    info: Any = None
    source: str | None = None
    cell_id: str | None = None
    started: float = 0.0
    began: float = 0.0
    start: Process | None = None
    end: Process | None = None
    seconds: float = 0.0
    gc: tuple[int, float] = (0, 0.0)
    peak: int | None = None
    method: str = "not available"
    overlapped: bool = False
    vram: tuple[Any, Any] = (None, None)
    pinned: list[Resource] = field(default_factory=list)
    trees: list[Any] = field(default_factory=list)
    on_end: list[Callable[[], object]] = field(default_factory=list)
    on_record: list[Callable[[Any], object]] = field(default_factory=list)


class Running:
    """The cells under way. There is one high-water mark for a process: before it is reset for a cell that begins, what
    it says is noted for all others, so that each has the peak of its own time whichever way they nest or overlap.

    `sampled_peak` gives the highest RSS seen since it was last called (or since the last cell began), in bytes, or
    None; it is asked where the kernel keeps no mark. Any thread may call anything here.
    """

    def __init__(self, read: Callable[[], Process] | None = None, mark: HighWater | None = None) -> None:
        self.sampled_peak: Callable[[], int | None] | None = None
        self._read = _this_process() if read is None else read
        self._mark = HighWater() if mark is None else mark
        self._scopes: list[Scope] = []
        self._lock = threading.RLock()  # a signal's handler may come in here

    def push(self) -> Scope:
        """A cell begins in this thread."""
        with self._lock:
            own = self.stack()
            scope = Scope(threading.get_ident(), len(own))
            self._scopes.append(scope)
            return scope

    def stack(self) -> list[Scope]:
        """Those of this thread, the innermost last."""
        me = threading.get_ident()
        return [scope for scope in self._scopes if scope.thread == me]

    def current(self) -> Scope | None:
        """The innermost of this thread."""
        me = threading.get_ident()
        return next((scope for scope in reversed(self._scopes) if scope.thread == me), None)

    def note(self) -> None:
        """Note for all cells under way what the mark says, because it is about to be reset."""
        with self._lock:
            others = [scope for scope in self._scopes if scope.start is not None]
            if others:
                _raise(others, self._mark.read() if self._mark.method == _KERNEL else self._sampled())

    def measure(self, scope: Scope) -> None:
        """Measure a cell from here on; raises ReadingError."""
        with self._lock:
            self.note()
            self._mark.reset()
            scope.method, scope.peak = self._mark.method, None
            if scope.method != _KERNEL:
                self._sampled()  # what was seen before is not this cell's
            scope.start = self._read()
            for other in self._scopes:
                if other.thread != scope.thread and other.start is not None:
                    scope.overlapped = other.overlapped = True

    def finish(self, scope: Scope) -> None:
        """Take the last reading of a cell that was taken out; raises ReadingError."""
        if scope.start is None:
            return
        with self._lock:
            end = scope.end = self._read()
            others = [other for other in self._scopes if other.start is not None]
            _raise([scope, *others], end.peak if self._mark.method == _KERNEL else self._sampled())
            if scope.peak is not None:
                scope.peak = max(scope.peak, scope.start.rss, end.rss)
                scope.method = scope.method if scope.method == _KERNEL else "sampled"

    def take(self, info: Any) -> list[Scope]:
        """Those that end with the cell that IPython knows by `info`, the innermost first.

        None is a cell of which nothing is known, such as a silent one: the innermost of this thread. There is more than
        one where a cell has awaited `run_cell_async`, whose end IPython does not tell.
        """
        with self._lock:
            ending = self._ending(info)
            self._scopes = [scope for scope in self._scopes if scope not in ending]
            return ending

    def _ending(self, info: Any) -> list[Scope]:
        source = getattr(info, "raw_cell", None)
        if info is not None and (not source or source.isspace()):
            return []  # the end of an empty cell is told, but not its beginning
        known = next((scope for scope in self._scopes if scope.info is not None and scope.info is info), None)
        if known is None:
            return self.stack()[-1:]
        own = [scope for scope in self._scopes if scope.thread == known.thread]
        return own[own.index(known) :][::-1]

    def clear(self) -> list[Scope]:
        """Forget them all."""
        with self._lock:
            scopes, self._scopes = self._scopes, []
            return scopes

    def _sampled(self) -> int | None:
        return None if self.sampled_peak is None else self.sampled_peak()


def _raise(scopes: list[Scope], seen: int | None) -> None:
    for scope in scopes:
        if seen is not None:
            scope.peak = seen if scope.peak is None else max(scope.peak, seen)


def _this_process() -> Callable[[], Process]:
    linux = LinuxSource(Path("/"))
    return linux.process if linux.exists() else PortableSource().process
