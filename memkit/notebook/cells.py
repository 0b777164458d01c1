"""What happens around every cell: mentioned variables are there and held, memory and time are accounted for."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from types import FrameType
from typing import TYPE_CHECKING, Any

from IPython.core.error import InputRejected

from memkit.errors import MemkitError, ReadingError
from memkit.lifecycle.resource import Resource
from memkit.memory.source import Process
from memkit.notebook.accounting.running import Running, Scope
from memkit.notebook.magics import show_all_answers
from memkit.wiring import Session

if TYPE_CHECKING:
    from memkit.notebook.accounting.badge import Badge
    from memkit.notebook.accounting.record import CellRecord

__all__ = ["CellRecord", "Cells", "RestoreFailedError", "Scope"]

log = logging.getLogger("memkit")

_KEPT = 1000
_MARK = "__memkit__"  # among IPython's hidden names, which only a reset of the namespace clears


def __getattr__(name: str) -> Any:
    """`CellRecord` when it is first asked for: a kernel that is loading has no record yet."""
    if name != "CellRecord":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from memkit.notebook.accounting.record import CellRecord

    return CellRecord


class RestoreFailedError(InputRejected, MemkitError):
    """A variable the cell mentions could not be brought back, so the cell was not run."""


class Cells:
    """Hooks on one shell. What they do for a cell never makes it fail, except that a variable cannot be restored.

    `listeners` are called in the cell's thread: ("cell", Scope) before a cell runs, ("end", Scope) when it has ended,
    exactly once for each of these even where IPython tells of no result, and ("record", CellRecord) once it is
    accounted for. Silent requests are not told of.
    """

    def __init__(self, shell: Any, session: Session, running: Running | None = None) -> None:
        self._shell = shell
        self._session = session
        self._local = threading.local()  # subshells run cells in threads of their own
        self._numbering = threading.Lock()
        self.running = Running() if running is None else running
        self.records: deque[CellRecord] = deque(maxlen=_KEPT)
        self.number = 0
        self.listeners: list[Callable[[str, Any], object]] = []
        self.badge: Badge | None = None
        self.first_at_end: Callable[[], object] = lambda: None  # before anything else is done about a cell's end
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
        self._shell.input_transformers_cleanup.append(_unwrap)
        # An `ast_transformers` entry would do too, but makes IPython walk every cell's tree once more (3 ms for 200
        # lines); a wrapped method costs nothing, and %%time and %%timeit come through it as well.
        self._transform = self._shell.transform_ast
        self._shell.transform_ast = self._transform_ast
        if self._session.settings.guard.badge:
            from memkit.notebook.accounting.badge import switch

            switch(self, self._shell, on=True)

    @property
    def sampled_peak(self) -> Callable[[], int | None] | None:
        """Gives the highest RSS, in bytes, since it was last called; for systems that keep no mark. May be set."""
        return self.running.sampled_peak

    @sampled_peak.setter
    def sampled_peak(self, sampled: Callable[[], int | None] | None) -> None:
        self.running.sampled_peak = sampled

    def uninstall(self) -> None:
        """Take everything back; a cell that runs right now ends unaccounted."""
        self._shell.user_ns_hidden.pop(_MARK, None)
        self._session.on_registered.remove(self._registered)
        for name, callback in self._events.items():
            self._shell.events.unregister(name, callback)
        if _unwrap in self._shell.input_transformers_cleanup:
            self._shell.input_transformers_cleanup.remove(_unwrap)
        if self._shell.__dict__.get("transform_ast") == self._transform_ast:
            del self._shell.transform_ast
        for scope in reversed(self.running.clear()):
            self._session.variables.leave(scope.pinned)

    # -- mentions --------------------------------------------------------------------------------------------------

    def _transform_ast(self, tree: Any) -> Any:
        tree = show_all_answers(self._transform(tree))
        scope = self.running.current()
        if scope is not None:
            scope.trees.append(tree)
            while self._bring(scope, tree):
                pass  # a function that has come back mentions more
        return tree

    def _bring(self, scope: Scope, tree: Any) -> bool:
        """Hold what the code mentions and is not held yet; whether any of it had to be brought back."""
        began = time.thread_time()
        held = {resource.name for resource in scope.pinned}
        names = self._mentioned(tree, self._tracked()) - held
        self._session.own_seconds += time.thread_time() - began
        found = [self._session.tracker.find(name) for name in names]
        away = [resource for resource in found if resource is not None and resource.demoted]
        try:
            scope.pinned += self._session.variables.enter(names)
        except Exception as error:
            raise RestoreFailedError(f"the cell was not run: {error}") from error
        return bool(away)

    def _tracked(self) -> set[str]:
        return {r.name for r in self._session.tracker.resources() if r.holder.kind == "variable"}

    def _registered(self, resource: Resource) -> None:
        """What a cell registers and goes on using is held like anything it mentions."""
        scope = self.running.current()
        if scope is None or resource.holder.kind != "variable":
            return
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
        self.running.push()

    def _pre_run_cell(self, info: Any) -> None:
        began = time.thread_time()
        scope = self.running.current()
        if scope is None:  # loaded between the two events
            return
        scope.info, scope.source, scope.cell_id = info, info.raw_cell, getattr(info, "cell_id", None)
        self.running.note()  # before a listener restarts what it samples
        self._tell("cell", scope)
        self.measure(scope)
        self._session.own_seconds += time.thread_time() - began

    def measure(self, scope: Scope) -> None:
        """Account for a cell from here on; nothing that was done before counts as the cell's."""
        clock = self._session.gc_clock
        scope.gc = (clock.runs, clock.seconds)
        scope.vram = (_vram(), None)
        try:
            self.running.measure(scope)
        except ReadingError as error:
            log.warning("memkit: this cell is not accounted for: %s", error)
        scope.started, scope.began = time.time(), time.perf_counter()

    def _post_execute(self) -> None:
        self.first_at_end()
        ended = time.perf_counter()
        began = time.thread_time()
        self._local.finished = None
        for scope in self.running.take(_info(sys._getframe(2))):  # of `run_cell` or `do_execute`, through `trigger`
            scope.seconds = ended - scope.began
            self._end(scope)
            self._local.finished = scope
        if _MARK not in self._shell.user_ns_hidden:
            self._shell.user_ns_hidden[_MARK] = True
            self._session.variables.forget_all("the namespace was reset")
        self._session.own_seconds += time.thread_time() - began

    def _end(self, scope: Scope) -> None:
        try:
            self._close(scope)
            if scope.info is not None:
                self._call(scope.on_end)
                self._tell("end", scope)
        finally:
            self._session.variables.leave(scope.pinned)

    def _close(self, scope: Scope) -> None:
        """The last readings of a cell."""
        clock = self._session.gc_clock
        scope.gc = (clock.runs - scope.gc[0], clock.seconds - scope.gc[1])
        scope.vram = (scope.vram[0], _vram())
        try:
            self.running.finish(scope)
        except ReadingError as error:
            log.warning("memkit: this cell is not accounted for: %s", error)

    def _post_run_cell(self, result: Any) -> None:
        scope: Scope | None = getattr(self._local, "finished", None)
        self._local.finished = None
        if scope is None or scope.start is None or scope.end is None:
            return
        record = self._record(scope, scope.start, scope.end, result)
        self.records.append(record)
        self._call(scope.on_record, record)
        self._tell("record", record)

    def _record(self, scope: Scope, start: Process, end: Process, result: Any) -> CellRecord:
        """`result` is None where the front end's request was cancelled, and its error then on its way up."""
        from memkit.notebook.accounting.record import CellRecord

        refused = getattr(result, "error_before_exec", None)
        error = refused or (sys.exc_info()[1] if result is None else result.error_in_exec)
        with self._numbering:
            self.number += 1
            number = self.number
        return CellRecord(
            number=number,
            cell_id=scope.cell_id,
            source=scope.source or "",
            started=scope.started,
            seconds=scope.seconds,
            before=start.private + (start.swap or 0),
            after=end.private + (end.swap or 0),
            peak=scope.peak,
            method=scope.method,
            gc_runs=scope.gc[0],
            gc_seconds=scope.gc[1],
            error=None if error is None else type(error).__name__,
            rss_before=start.rss,
            rss_after=end.rss,
            execution_count=getattr(result, "execution_count", None),
            depth=scope.depth,
            in_history=scope.info.store_history,
            overlapped=scope.overlapped,
            ran=refused is None,
            **_vram_between(*scope.vram),
        )

    def _call(self, callbacks: Iterable[Callable[..., object]], *arguments: Any) -> None:
        for callback in tuple(callbacks):
            try:
                callback(*arguments)
            except Exception:
                log.exception("memkit: what was to be done at the end of a cell failed")

    def _tell(self, what: str, item: Any) -> None:
        for listener in tuple(self.listeners):
            try:
                listener(what, item)
            except Exception:
                log.exception("memkit: a cell listener failed")


def _info(frame: FrameType) -> Any:
    """IPython's description of the cell that ends, None where it cannot be told.

    `post_execute` is told nothing, and `last_execution_result` is shared by all subshells and stays that of an earlier
    cell when one is interrupted.
    """
    names = frame.f_locals
    return getattr(names.get("result", names.get("res")), "info", None)


def _unwrap(lines: list[str]) -> list[str]:
    """Have `%%memkit` cells run as cells, not as the text that a magic is given."""
    if not lines or not lines[0].startswith("%%memkit"):
        return lines
    from memkit.notebook.accounting.measured import unwrap

    return unwrap(lines)


_unwrap.has_side_effects = True  # type: ignore[attr-defined]  # not when IPython asks whether typed text is complete


def _vram() -> Any:
    if "torch" not in sys.modules:
        return None
    from memkit.notebook.accounting import vram

    return vram.read()


def _vram_between(before: Any, after: Any) -> dict[str, Any]:
    if after is None:
        return {}
    from memkit.notebook.accounting.vram import between

    peak, exact = between(before, after)
    return {"vram_peak": peak, "vram_exact": exact}
