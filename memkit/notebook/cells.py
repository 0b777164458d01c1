"""What happens around every cell: mentioned variables are there and held, memory and time are accounted for."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from IPython.core.error import InputRejected

from memkit.errors import MemkitError
from memkit.lifecycle.resource import Resource
from memkit.memory.high_water import HighWater
from memkit.notebook.magics import show_all_answers
from memkit.wiring import Session

log = logging.getLogger("memkit")

_KEPT = 1000
_MARK = "__memkit__"  # among IPython's hidden names, which only a reset of the namespace clears


class RestoreFailedError(InputRejected, MemkitError):
    """A variable the cell mentions could not be brought back, so the cell was not run."""


@dataclass(frozen=True, slots=True)
class CellRecord:
    """What one cell took: bytes and seconds. `peak` is the highest RSS while it ran, None where it cannot be read."""

    number: int
    cell_id: str | None
    source: str
    started: float
    seconds: float
    before: int
    after: int
    peak: int | None
    method: str
    gc_seconds: float
    error: str | None

    @property
    def delta(self) -> int:
        """Bytes by which the process has grown; negative where it has shrunk."""
        return self.after - self.before

    @property
    def title(self) -> str:
        """The first line that says something."""
        lines = (line.strip() for line in self.source.splitlines())
        return next((line for line in lines if line and not line.startswith("#")), "")[:60]


@dataclass(slots=True)
class _Scope:
    """One execution under way; they nest when a magic runs a cell."""

    pinned: list[Resource] = field(default_factory=list)
    trees: list[Any] = field(default_factory=list)
    source: str | None = None
    cell_id: str | None = None
    started: float = 0.0
    began: float = 0.0
    before: int = 0
    gc_before: float = 0.0
    peak: int = 0


class Cells:
    """Hooks on one shell. What they do for a cell never makes it fail, except that a variable cannot be restored."""

    def __init__(self, shell: Any, session: Session) -> None:
        self._shell = shell
        self._session = session
        self._high_water = HighWater()
        self._local = threading.local()  # subshells run cells in threads of their own
        self.records: deque[CellRecord] = deque(maxlen=_KEPT)
        self.number = 0
        self.listeners: list[Callable[[str, Any], object]] = []
        self._events = {
            "pre_execute": self._pre_execute,
            "pre_run_cell": self._pre_run_cell,
            "post_execute": self._post_execute,
            "post_run_cell": self._post_run_cell,
        }

    def install(self) -> None:
        """Begin to listen."""
        self._shell.user_ns_hidden[_MARK] = True
        self._session.on_registered.append(self._registered)
        for name, callback in self._events.items():
            self._shell.events.register(name, callback)
        # An `ast_transformers` entry would do too, but makes IPython walk every cell's tree once more (3 ms for 200
        # lines); a wrapped method costs nothing, and %%time and %%timeit come through it as well.
        self._transform = self._shell.transform_ast
        self._shell.transform_ast = self._transform_ast

    def uninstall(self) -> None:
        """Take everything back; a cell that runs right now ends unaccounted."""
        self._shell.user_ns_hidden.pop(_MARK, None)
        self._session.on_registered.remove(self._registered)
        for name, callback in self._events.items():
            self._shell.events.unregister(name, callback)
        if self._shell.__dict__.get("transform_ast") == self._transform_ast:
            del self._shell.transform_ast
        while self._stack:
            self._session.variables.leave(self._stack.pop().pinned)

    @property
    def _stack(self) -> list[_Scope]:
        if not hasattr(self._local, "stack"):
            self._local.stack = []
            self._local.finished = None
        stack: list[_Scope] = self._local.stack
        return stack

    # -- mentions --------------------------------------------------------------------------------------------------

    def _transform_ast(self, tree: Any) -> Any:
        tree = show_all_answers(self._transform(tree))
        began = time.thread_time()
        names = self._mentioned(tree, self._tracked())
        self._session.own_seconds += time.thread_time() - began
        if self._stack:
            self._stack[-1].trees.append(tree)
        if names and self._stack:
            try:
                self._stack[-1].pinned += self._session.variables.enter(names)
            except Exception as error:
                raise RestoreFailedError(f"the cell was not run: {error}") from error
        return tree

    def _tracked(self) -> set[str]:
        return {r.name for r in self._session.tracker.resources() if r.holder.kind == "variable"}

    def _registered(self, resource: Resource) -> None:
        """What a cell registers and goes on using is held like anything it mentions."""
        if self._stack and resource.holder.kind == "variable":
            scope = self._stack[-1]
            if any(self._mentioned(tree, {resource.name}) for tree in scope.trees):
                scope.pinned += self._session.variables.enter([resource.name])

    def _mentioned(self, tree: Any, tracked: set[str]) -> frozenset[str]:
        if not tracked:
            return frozenset()
        from memkit.notebook.names import mentions  # not before something is tracked

        try:
            found = mentions(tree, self._shell.user_ns, tracked)
        except Exception:
            log.exception("memkit: what the cell mentions could not be read; nothing is restored for it")
            return frozenset()
        return found.loads | found.deletes

    # -- around the cell -------------------------------------------------------------------------------------------

    def _pre_execute(self) -> None:
        if not self._stack:
            self._local.finished = None
        self._stack.append(_Scope())

    def _pre_run_cell(self, info: Any) -> None:
        began = time.thread_time()
        scope = self._stack[-1]
        scope.source, scope.cell_id = info.raw_cell, getattr(info, "cell_id", None)
        for outer in self._stack[:-1]:
            outer.peak = max(outer.peak, self._high_water.read() or 0)
        scope.before = self._session.meter.read()
        scope.gc_before = self._session.gc_clock.seconds
        self._high_water.reset()
        self._tell("cell", scope)
        self._session.own_seconds += time.thread_time() - began
        scope.started, scope.began = time.time(), time.perf_counter()

    def _post_execute(self) -> None:
        if not self._stack:  # loaded by the cell that ends now
            return
        ended = time.perf_counter()
        began = time.thread_time()
        scope = self._stack.pop()
        if scope.source is not None:
            peak = max(scope.peak, self._high_water.read() or 0)
            for outer in self._stack:
                outer.peak = max(outer.peak, peak)
            self._local.finished = (scope, ended - scope.began, peak or None, self._session.meter.read())
        self._session.variables.leave(scope.pinned)
        if _MARK not in self._shell.user_ns_hidden:
            self._shell.user_ns_hidden[_MARK] = True
            self._session.variables.forget_all("the namespace was reset")
        self._session.own_seconds += time.thread_time() - began

    def _post_run_cell(self, result: Any) -> None:
        finished, self._local.finished = getattr(self._local, "finished", None), None
        if finished is None:
            return
        scope, seconds, peak, after = finished
        error = result.error_before_exec or result.error_in_exec
        self.number += 1
        record = CellRecord(
            number=self.number,
            cell_id=scope.cell_id,
            source=scope.source,
            started=scope.started,
            seconds=seconds,
            before=scope.before,
            after=after,
            peak=peak,
            method=self._high_water.method,
            gc_seconds=self._session.gc_clock.seconds - scope.gc_before,
            error=None if error is None else type(error).__name__,
        )
        self.records.append(record)
        self._tell("record", record)

    def _tell(self, what: str, item: Any) -> None:
        for listener in tuple(self.listeners):
            try:
                listener(what, item)
            except Exception:
                log.exception("memkit: a cell listener failed")
