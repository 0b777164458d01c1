"""The running code of every thread, and what its functions hold in their variables."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_CO_OPTIMIZED = 0x1  # set on functions; the locals of a module or class body are a namespace


def running() -> Iterator[tuple[FrameType, str]]:
    """Frames of functions that run now in any thread, with the thread's name ("" for this one); memkit's left out."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    tops = sys._current_frames()
    while tops:  # nothing may stay in a variable: this function's own frame is among them, and would hold itself
        ident, frame = tops.popitem()
        name = "" if ident == threading.get_ident() else names.get(ident, str(ident))
        while frame is not None:
            if frame.f_code.co_flags & _CO_OPTIMIZED and not is_ours(frame):
                yield frame, name
            frame = frame.f_back  # type: ignore[assignment]


def is_ours(frame: FrameType) -> bool:
    """Whether it is memkit's own code that runs."""
    module = frame.f_globals.get("__name__")
    return type(module) is str and module.partition(".")[0] == "memkit"


def variable_holding(frame: FrameType, wanted: frozenset[int]) -> str | None:
    """The name of the variable with one of these ids.

    Before Python 3.13 reading `f_locals` makes the frame keep a dict of its variables, and with it the very objects
    that are to go; so the dict is emptied again, unless the code has it in its hands (from `locals()`).
    """
    variables: Any = frame.f_locals
    name = next((name for name, held in list(variables.items()) if id(held) in wanted), None)
    if type(variables) is dict and sys.getrefcount(variables) <= _OURS_ONLY:
        variables.clear()
    return name


def describe(frame: FrameType, variable: str | None, thread: str) -> str:
    """A frame as a person would point at it."""
    where = f"a frame of `{frame.f_code.co_name}` at line {frame.f_lineno}"
    inside = f" (variable {variable})" if variable else ""
    return f"{where}{inside}" + (f" in thread {thread!r}" if thread else "")


def _own_references() -> int:
    """How often a dict counts that only a frame and one variable of `variable_holding` hold."""
    holder = [{}]  # type: ignore[var-annotated]
    variables = holder[0]
    return sys.getrefcount(variables)


_OURS_ONLY = _own_references()
