"""What is left of an error once its cell has ended: where it was raised, in words, and none of the memory it held."""

from __future__ import annotations

import builtins
import linecache
import os
import sys
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from types import CodeType, FrameType, TracebackType
from typing import Any

_PLACES = 3
_ENDS = 100  # entries looked into at each end of a traceback
_LONGEST = 80  # characters of a line of code
_NOWHERE = "<the frames of this cell were let go of, to free memory>"


@dataclass(frozen=True, slots=True)
class Place:
    """A line of the notebook's code that was running, in the cell that ran or in an earlier one (`here` is False).

    `times` in a row, where a function called itself.
    """

    code: CodeType
    line: int
    here: bool
    times: int = 1


@dataclass(frozen=True, slots=True)
class Trail:
    """The frames of a traceback, of a long one those at both ends, and how many were left out between them."""

    start: tuple[TracebackType, ...]
    end: tuple[TracebackType, ...]
    between: int


def trail(first: TracebackType | None) -> Trail:
    """Walk a traceback once: 0.1 s for the two million entries of a recursion that ended for lack of memory."""
    start: list[TracebackType] = []
    while first is not None and len(start) < _ENDS:
        start.append(first)
        first = first.tb_next
    end: deque[TracebackType] = deque(maxlen=_ENDS)
    count = 0
    while first is not None:
        end.append(first)
        first = first.tb_next
        count += 1
    return Trail(tuple(start), tuple(end), count - len(end))


def places(found: Trail, variables: Mapping[str, Any]) -> tuple[Place, ...]:
    """The last three lines of the notebook's own code, innermost last; `variables` are its globals."""
    lines: deque[Place] = deque(maxlen=_PLACES)
    here = ""
    for number, one in enumerate((*found.start, *found.end)):
        code, last = one.tb_frame.f_code, lines[-1] if lines else None
        if one.tb_frame.f_globals is not variables:
            continue
        here = here or code.co_filename
        if last is not None and last.code is code and last.line == one.tb_lineno:
            left_out = found.between if number == len(found.start) else 0
            lines[-1] = replace(last, times=last.times + 1 + left_out)
        else:
            lines.append(Place(code, one.tb_lineno, here == code.co_filename))
    return tuple(lines)


def describe(place: Place, shell: Any) -> str:
    """`cell line 12, in load: rows.append(x)`."""
    code = place.code
    inside = "" if code.co_name.startswith("<module") or code.co_name == "<cell line: 1>" else f", in {code.co_name}"
    times = f" ({place.times} times)" if place.times > 1 else ""
    text = linecache.getline(code.co_filename, place.line).strip()[:_LONGEST]
    cell = "cell" if place.here else _other(code, shell)
    return f"{cell} line {place.line}{inside}{times}" + (f": {text}" if text else "")


def _other(code: CodeType, shell: Any) -> str:
    """An earlier cell, or the code that a magic such as `%%time` runs."""
    number = getattr(shell.compile, "_filename_map", {}).get(code.co_filename)
    return f"cell In[{number}]" if number is not None else os.path.basename(code.co_filename)


def frames(found: Trail) -> list[FrameType]:
    """Those of the trail, outermost first."""
    return [one.tb_frame for one in (*found.start, *found.end)]


def let_go(error: BaseException, first: TracebackType | None) -> None:
    """Clear the frames of an error, and of those that led to it, and cut the links between them."""
    for one in _chain(error):
        _clear(one.__traceback__)
        one.__traceback__ = one.__context__ = one.__cause__ = None
    _clear(first)


def _clear(first: TracebackType | None) -> None:
    """Whoever still holds the first entry, as IPython does until the cell is over, holds no more than that.

    What lies between the ends of a long traceback is freed with the link to it.
    """
    if first is not None:
        found = trail(first)
        for one in (*found.start, *found.end):
            with suppress(RuntimeError):  # it runs still
                one.tb_frame.clear()
        first.tb_next = None


def _chain(error: BaseException) -> list[BaseException]:
    waiting: list[BaseException | None] = [error]
    found: dict[int, BaseException] = {}
    group: Any = getattr(builtins, "BaseExceptionGroup", ())  # since Python 3.11
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in found:
            found[id(one)] = one
            waiting += [one.__context__, one.__cause__, *(one.exceptions if isinstance(one, group) else ())]
    return list(found.values())


def remember(shell: Any, error: BaseException) -> None:
    """Make this the last error: for `%tb`, `%debug`, the reply, the history, and whoever asks `sys`."""
    error.__traceback__ = _nowhere()
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, error.__traceback__
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    for formatter in (shell.InteractiveTB, shell.SyntaxTB):
        if getattr(formatter, "tb", None) is not None:
            formatter.tb = None
    result = getattr(shell.displayhook, "exec_result", None)
    if result is not None and result.error_in_exec is not None:
        result.error_in_exec = error


def _nowhere() -> TracebackType:
    """A traceback that leads to nothing: `%debug` fails without one. A generator's frame knows of no caller."""
    names: dict[str, Any] = {"sys": sys}
    exec(compile("frames = (sys._getframe() for _ in '1')", _NOWHERE, "exec"), names)
    frame = next(names["frames"])
    return TracebackType(None, frame, frame.f_lasti, frame.f_lineno)
