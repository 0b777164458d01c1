"""Which variables a cell has made or has let grow: noted for next to nothing before it, sized only when asked."""

from __future__ import annotations

import gc
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import BuiltinFunctionType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any

from memkit.notebook.residency import Residency, changed_in_mapping

_CO_OPTIMIZED = 0x1  # set on functions; the locals of a cell are the variables themselves
_FEW = 16  # children of a collection that are looked at one by one
_OTHERS = 100  # objects of other classes that are looked into before a cell; the rest counts as unchanged
_OWN_NAMES = re.compile(r"_(?:\d+|_{0,2}|i{1,3}|ih|oh|dh|i\d+|exit_code)|In|Out|exit|quit|get_ipython|open")

Measure = Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class Grown:
    """A variable and its bytes now. `new`: this cell has bound it; else it was there and has grown.

    `where` is empty for a variable of the notebook and `load()` for one inside a running function of it.
    """

    name: str
    type: str
    size: int
    new: bool
    where: str = ""


@dataclass(frozen=True, slots=True)
class _Suspect:
    name: str
    value: Any
    new: bool
    where: str = ""


class Growth:
    """The variables as they were when a cell began. Holds none of their values."""

    def __init__(self, variables: Mapping[str, Any]) -> None:
        self._variables = variables
        values = list(variables.values())
        self._ids = dict(zip(list(variables), map(id, values), strict=False))
        self._measures = _measures()
        self._sizes = _sizes(self._measures, values)
        self._residency = Residency.of(values)
        self._outputs = len(variables.get("Out") or ())

    @classmethod
    def begin(cls, variables: Mapping[str, Any]) -> Growth:
        """Note what is there: identities, and sizes only where they can be had for nothing (0.1 ms for 300)."""
        return cls(variables)

    def biggest(
        self,
        count: int = 3,
        seconds: float = 0.1,
        frames: Iterable[FrameType] = (),
        clock: Callable[[], float] = time.perf_counter,
    ) -> tuple[Grown, ...]:
        """The largest variables made or grown since; memory that several share is counted in one of them.

        `frames` are those of a traceback: what the notebook's own functions among them hold counts too. Takes about
        `seconds`; what cannot be sized in that time, or for lack of memory, is left out. Never raises.
        """
        try:
            return tuple(sorted(self._sized(frames, seconds, clock), key=lambda one: one.size, reverse=True)[:count])
        except MemoryError:  # to say nothing is better than to fail while a failure is being told
            return ()

    def _sized(self, frames: Iterable[FrameType], seconds: float, clock: Callable[[], float]) -> list[Grown]:
        from memkit.lifecycle.peek import type_name
        from memkit.lifecycle.sizing import size_of

        end = clock() + seconds
        suspects = sorted(_once([*self._changed(), *self._locals(frames)]), key=_guess, reverse=True)
        seen = self._already_there(clock() + seconds / 4, clock) if suspects else set()
        found: list[Grown] = []
        for number, suspect in enumerate(suspects):
            left = end - clock()
            if left <= 0:
                break
            # `size_of` may take twice its budget; the first few are given most of the time.
            budget = left / 2 / min(4, len(suspects) - number)
            size = max(size_of(suspect.value, budget=budget, seen=seen).bytes, changed_in_mapping(suspect.value))
            if size:
                found.append(Grown(suspect.name, type_name(suspect.value), size, suspect.new, suspect.where))
        return found

    def _changed(self) -> Iterator[_Suspect]:
        old = self._still_there()
        for name, value in list(self._variables.items()):
            if not _is_theirs(name, value):
                continue
            if self._ids.get(name) == id(value):
                if self._has_grown(value):
                    yield _Suspect(name, value, new=False)
            elif id(value) not in old or self._has_grown(value):
                yield _Suspect(name, value, new=True)
        outputs = self._variables.get("Out")
        if isinstance(outputs, dict):
            yield from (_Suspect(f"Out[{n}]", value, new=True) for n, value in list(outputs.items())[self._outputs :])

    def _still_there(self) -> set[int]:
        """Objects bound to the same name as before; the id of any other may be a new object's by now."""
        return {ident for name, ident in self._ids.items() if id(self._variables.get(name)) == ident}

    def _has_grown(self, value: Any) -> bool:
        before = self._sizes.get(id(value))
        if before is None:
            return False
        return _measured(self._measures, value) != before or self._residency.has_grown(value)

    def _locals(self, frames: Iterable[FrameType]) -> Iterator[_Suspect]:
        """Innermost last, as in a traceback; each object once, where it was last seen."""
        old = self._still_there()
        for frame in frames:
            code = frame.f_code
            if frame.f_globals is not self._variables or not code.co_flags & _CO_OPTIMIZED:
                continue
            for name, value in _locals_of(frame):
                if _is_theirs(name, value) and id(value) not in old:
                    yield _Suspect(name, value, new=True, where=f"{code.co_name}()")

    def _already_there(self, deadline: float, clock: Callable[[], float]) -> set[int]:
        """Memory of unchanged arrays, frames and tensors, so that a new view of one does not count as new memory."""
        from memkit.lifecycle.sizing import size_of

        seen: set[int] = set()
        for name, value in list(self._variables.items()):
            if self._ids.get(name) == id(value) and _may_lend(value) and not self._has_grown(value):
                if clock() > deadline:
                    break
                size_of(value, budget=0.002, seen=seen)
        return seen


def _measures() -> dict[int, Measure]:
    """What tells in under a microsecond that a value of a type has grown; by the type's id, see `peek.ATOMS`."""
    found: dict[int, Measure] = {id(kind): _spread for kind in (list, dict, tuple)}
    found |= {id(kind): len for kind in (set, bytearray, deque)}
    numpy: Any = sys.modules.get("numpy")
    pandas: Any = sys.modules.get("pandas")
    if hasattr(numpy, "ndarray"):
        found[id(numpy.ndarray)] = numpy.ndarray.nbytes.__get__
    if hasattr(pandas, "DataFrame") and hasattr(pandas, "Series"):
        found[id(pandas.DataFrame)] = _frame_size
        found[id(pandas.Series)] = _frame_size
    return found


def _sizes(measures: dict[int, Measure], values: list[Any]) -> dict[int, object]:
    found, others = {}, 0
    for value in values:
        measure = measures.get(id(type(value)))
        if measure is not None:
            found[id(value)] = measure(value)
        elif id(type(value)) not in _OPAQUE and others < _OTHERS:
            others += 1
            found[id(value)] = _inside(value)
    return found


def _measured(measures: dict[int, Measure], value: Any) -> object:
    return measures.get(id(type(value)), _inside)(value)


def _spread(value: Any) -> int:
    """The length; of a short collection with what its elements are long."""
    count = len(value)
    if count > _FEW:
        return count
    for child in list(value.values() if type(value) is dict else value):  # a copy: other threads may change it
        if id(type(child)) in _COLLECTIONS:
            count += len(child)
    return count


def _inside(value: Any) -> int:
    """How long the collections are that an object refers to: its attributes, in a `__dict__` or, since 3.11, not."""
    held = gc.get_referents(value)
    for child in held[:_FEW]:
        if type(child) is dict and len(child) <= _FEW:
            held += child.values()
    return sum([_spread(child) for child in held if id(type(child)) in _SPREADING])


def _frame_size(frame: Any) -> object:
    try:
        return frame.shape
    except Exception:  # noqa: BLE001 - a library's code, on an object that may be half made; it counts as unchanged
        return None


_COLLECTIONS = frozenset(map(id, (list, dict, set, tuple, bytearray, deque)))
_SPREADING = frozenset(map(id, (list, dict, tuple)))
# Nothing of these grows: numbers and texts are replaced, and what a function or module refers to is not its own.
_OPAQUE = frozenset(
    map(
        id,
        (
            *(int, float, complex, bool, str, bytes, range, slice, type(None)),
            *(ModuleType, FunctionType, BuiltinFunctionType, MethodType, type),
        ),
    )
)


def _is_theirs(name: str, value: Any) -> bool:
    """Whether it is the user's data; other than for `%memkit top`, names with an underscore of theirs count."""
    from memkit.lifecycle.top import is_data

    return not (_OWN_NAMES.fullmatch(name) or name.startswith((".", "__"))) and is_data("x", value)


def _may_lend(value: Any) -> bool:
    """Whether others can share its memory without being the same object."""
    return id(type(value)) not in _OPAQUE and id(type(value)) not in _COLLECTIONS


def _guess(suspect: _Suspect) -> int:
    """A first idea of the size, at no cost, so that the time goes where the bytes are."""
    try:
        return max(int(getattr(suspect.value, "nbytes", 0)), sys.getsizeof(suspect.value))
    except Exception:  # noqa: BLE001 - foreign properties; the guess only orders what is measured
        return 0


def _once(suspects: Iterable[_Suspect]) -> list[_Suspect]:
    """One entry for each object: a variable of the notebook before a local, an inner local before an outer one."""
    found: dict[int, _Suspect] = {}
    for suspect in suspects:
        known = found.get(id(suspect.value))
        if known is None or known.where:
            found[id(suspect.value)] = suspect
    return list(found.values())


def _locals_of(frame: FrameType) -> list[tuple[str, Any]]:
    """A function's variables. Before Python 3.13 the frame keeps the dict it hands out, which would keep their values
    alive; it is emptied, unless the code has it in its own hands (from `locals()`)."""
    variables: Any = frame.f_locals
    found = list(variables.items())
    if type(variables) is dict and sys.getrefcount(variables) <= _OURS_ONLY:
        variables.clear()
    return found


def _own_references() -> int:
    """How often a dict counts that only a frame and one variable of `_locals_of` hold."""
    holder = [{}]  # type: ignore[var-annotated]
    variables = holder[0]
    return sys.getrefcount(variables)


_OURS_ONLY = _own_references()
