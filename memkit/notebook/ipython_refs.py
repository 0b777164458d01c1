"""What IPython itself keeps alive: displayed results and the last traceback, and how to let go of them."""

from __future__ import annotations

import builtins
import gc
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from types import CellType, FrameType, TracebackType
from typing import Any, NamedTuple

_UNDERSCORES = ("_", "__", "___")
_NUMBERED = re.compile(r"_\d+")
_NOTHING = ""  # what IPython's display hook puts there itself before the first result
_LAST = ("last_type", "last_value", "last_traceback", "last_exc")
_CO_OPTIMIZED = 0x1  # set on functions, whose locals are the frame's own; a module's are its namespace


class _Forgotten(Exception):  # noqa: N818 - stands for an error, is none
    """Stands in for an error whose traceback was let go, so that the last execution still counts as failed."""


class _Reference(NamedTuple):
    """One reference IPython keeps: the name a user knows it by, and how to clear it."""

    name: str
    clear: Callable[[], object]


def count(shell: Any, value: object) -> int:
    """How many references to this very object `forget` would clear."""
    return sum(1 for _ in _references(shell, value))


def forget(shell: Any, value: object) -> tuple[str, ...]:
    """Clear every reference IPython keeps to this very object; the names of what was cleared, as a user knows them.

    Variables of the user stay, also a `_` or `_3` that the user assigned. Displaying results works on as before.
    Call it from the thread that runs cells.
    """
    found = list(_references(shell, value))
    for reference in found:
        reference.clear()
    return tuple(dict.fromkeys(reference.name for reference in found))


def _references(shell: Any, value: object) -> Iterator[_Reference]:
    yield from _in_outputs(shell, value)
    yield from _in_numbered(shell, value)
    for name in _UNDERSCORES:
        yield from _in_underscore(shell, name, value)
    for result in _results(shell):
        if result.result is value:
            yield _Reference("the last result", partial(setattr, result, "result", None))


def _in_outputs(shell: Any, value: object) -> Iterator[_Reference]:
    histories = (getattr(shell.history_manager, "output_hist", None), shell.user_ns.get("_oh"))
    for history in {id(one): one for one in histories if isinstance(one, dict)}.values():
        for number in [key for key, held in list(history.items()) if held is value]:
            yield _Reference(f"Out[{number}]", partial(history.pop, number, None))


def _in_numbered(shell: Any, value: object) -> Iterator[_Reference]:
    hidden, visible = shell.user_ns_hidden, shell.user_ns
    for name in [n for n, held in list(hidden.items()) if held is value and _NUMBERED.fullmatch(str(n))]:
        yield _Reference(name, partial(hidden.pop, name, None))
        if visible.get(name) is value:
            yield _Reference(name, partial(visible.pop, name, None))


def _in_underscore(shell: Any, name: str, value: object) -> Iterator[_Reference]:
    """The hook, the namespace and the hidden names must agree, or IPython takes `_` for one the user has assigned."""
    hook, visible, hidden = shell.displayhook, shell.user_ns, shell.user_ns_hidden
    in_hook, in_hidden = getattr(hook, name, None) is value, hidden.get(name) is value
    if in_hook:
        yield _Reference(name, partial(setattr, hook, name, _NOTHING))
    if in_hidden:
        yield _Reference(name, partial(hidden.__setitem__, name, _NOTHING))
    if (in_hook or in_hidden) and visible.get(name) is value:
        yield _Reference(name, partial(visible.__setitem__, name, _NOTHING))


def _results(shell: Any) -> Iterator[Any]:
    """The last execution's result, and that of the running cell, which its display hook fills."""
    for result in (shell.last_execution_result, getattr(shell.displayhook, "exec_result", None)):
        if result is not None:
            yield result


def forget_traceback(shell: Any) -> bool:
    """Let go of the last error: its traceback, and the locals of its frames; whether there was one.

    `%debug` has nothing to look at afterwards. The last execution still counts as failed. Frames still running keep
    their locals. Call it from the thread that runs cells.
    """
    errors, tracebacks = _errors(shell), _tracebacks(shell)
    for name in _LAST:
        if hasattr(sys, name):
            delattr(sys, name)
    for formatter in _formatters(shell):
        _empty(formatter)
    for result in _results(shell):
        for name in ("error_in_exec", "error_before_exec"):
            if getattr(result, name) is not None:
                setattr(result, name, _Forgotten(f"{type(getattr(result, name)).__name__} (its traceback was let go)"))
    for one in tracebacks:
        _clear_frames(one)
    return bool(errors or tracebacks)


def _clear_frames(one: TracebackType) -> None:
    """Before Python 3.13 a frame whose `f_locals` was read keeps a dict of them; reading again empties it."""
    traceback.clear_frames(one)
    for frame, _ in traceback.walk_tb(one):
        if frame.f_code.co_flags & _CO_OPTIMIZED:
            frame.f_locals  # noqa: B018


def traceback_holds(shell: Any, value: object) -> bool:
    """Whether the last error keeps the object: among the locals of a frame of its traceback, or as its argument."""
    if any(value is arg for error in _errors(shell) for arg in error.args):
        return True
    return any(_frame_holds(frame, value) for one in _tracebacks(shell) for frame, _ in traceback.walk_tb(one))


def _frame_holds(frame: FrameType, value: object) -> bool:
    """By the collector's view: reading `f_locals` would, before Python 3.13, make the frame keep a dict of them."""
    if not frame.f_code.co_flags & _CO_OPTIMIZED:
        return False
    shared = (frame.f_globals, frame.f_builtins)
    for held in gc.get_referents(frame):
        if held is value:
            return True
        inner = type(held) is CellType or (type(held) is dict and not any(held is one for one in shared))
        if inner and any(value is one for one in gc.get_referents(held)):
            return True
    return False


def _formatters(shell: Any) -> Iterator[Any]:
    for name in ("InteractiveTB", "SyntaxTB"):
        formatter = getattr(shell, name, None)
        if formatter is not None:
            yield formatter


def _empty(formatter: Any) -> None:
    for name in ("tb", "last_syntax_error"):
        if getattr(formatter, name, None) is not None:
            setattr(formatter, name, None)
    debugger = getattr(formatter, "pdb", None)
    if debugger is not None and hasattr(debugger, "forget"):
        debugger.forget()
        debugger.botframe = None


def _errors(shell: Any) -> list[BaseException]:
    """The last errors IPython and Python keep, with the errors that led to them."""
    waiting: list[Any] = [getattr(sys, name, None) for name in ("last_value", "last_exc")]
    waiting += [getattr(one, "last_syntax_error", None) for one in _formatters(shell)]
    for result in _results(shell):
        waiting += [result.error_in_exec, result.error_before_exec]
    found: dict[int, BaseException] = {}
    while waiting:
        error = waiting.pop()
        if isinstance(error, BaseException) and not isinstance(error, _Forgotten) and id(error) not in found:
            found[id(error)] = error
            waiting += [error.__cause__, error.__context__, *_grouped(error)]
    return list(found.values())


def _grouped(error: BaseException) -> tuple[BaseException, ...]:
    group: Any = getattr(builtins, "BaseExceptionGroup", None)  # since Python 3.11
    return error.exceptions if group is not None and isinstance(error, group) else ()


def _tracebacks(shell: Any) -> list[TracebackType]:
    kept = [getattr(sys, "last_traceback", None), *(getattr(one, "tb", None) for one in _formatters(shell))]
    kept += [error.__traceback__ for error in _errors(shell)]
    return list({id(one): one for one in kept if isinstance(one, TracebackType)}.values())
