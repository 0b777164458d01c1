"""IPython's one slot for handlers of exceptions, shared by all who need it, and by whoever had it before."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

log = logging.getLogger("memkit")

Handler = Callable[[type, BaseException, Any, Any], BaseException | None]
"""Gets kind, error, traceback and tb_offset. Returns the error for the next to show, or None where it has shown it."""


class ErrorSlot:
    """Hands an error that ends a cell to each handler for its type in the order they were added, then shows it.

    A handler that fails is left out, and the error it was given is shown.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._handlers: list[tuple[tuple[type[BaseException], ...], Handler]] = []
        self._before: tuple[Any, Any] | None = None
        self._ours: Any = None
        self.first: Callable[[], object] = lambda: None  # before anything else is done about an error

    def add(self, types: tuple[type[BaseException], ...], handler: Handler) -> None:
        """Give errors of some types to a handler, now and after later installs."""
        self._handlers.append((types, handler))
        if self._before is not None and self._is_ours():
            self._occupy()

    def install(self) -> None:
        """Take the slot; idempotent."""
        if self._before is None:
            self._before = (self._shell.custom_exceptions, self._shell.CustomTB)
            self._occupy()

    def uninstall(self) -> None:
        """Give the slot back to who had it; if somebody else has taken it since, it stays theirs. Idempotent."""
        if self._before is not None and self._is_ours():
            self._shell.custom_exceptions, self._shell.CustomTB = self._before
        self._before = None

    def _is_ours(self) -> bool:
        return self._shell.CustomTB is self._ours

    def _occupy(self) -> None:
        types = [kind for group, _ in self._handlers for kind in group]
        self._shell.set_custom_exc((*self._chained, *dict.fromkeys(types)), self._handle)
        self._ours = self._shell.CustomTB

    @property
    def _chained(self) -> tuple[type[BaseException], ...]:
        return tuple(self._before[0]) if self._before is not None else ()

    def _handle(self, shell: Any, kind: type, error: BaseException, traceback: Any, tb_offset: Any = None) -> None:
        """IPython leaves it to the handler to show the error."""
        self.first()
        for types, handler in tuple(self._handlers):
            if isinstance(error, types):
                left = handled(handler, error, traceback, tb_offset)
                if left is None:
                    return
                error = left
        self._show(shell, error, traceback, tb_offset)

    def _show(self, shell: Any, error: BaseException, traceback: Any, tb_offset: Any) -> None:
        kind = type(error)
        if self._before is not None and issubclass(kind, self._chained):
            self._before[1](kind, error, traceback, tb_offset)
        elif _came_from_compiling(traceback) and isinstance(error, IndentationError):
            shell.showindentationerror()
        elif _came_from_compiling(traceback):
            shell.showsyntaxerror()
        else:
            shell.showtraceback((kind, error, traceback), tb_offset=tb_offset, running_compiled_code=True)


def handled(handler: Handler, error: BaseException, traceback: Any, tb_offset: Any) -> BaseException | None:
    """What a handler answers; the error itself where it fails, which is logged."""
    try:
        return handler(type(error), error, traceback, tb_offset)
    except Exception:  # the cell's own error matters more, and IPython would throw the whole slot out
        log.exception("memkit: an error could not be explained")
        return error


def _came_from_compiling(traceback: Any) -> bool:
    """IPython compiles a cell in one function, runs it in another, and shows what compiling raises in its own way."""
    return traceback is not None and traceback.tb_frame.f_code.co_name == "run_cell_async"
