"""Functions, classes and cells of the notebook as pickle sees them: with the next kernel's names as their globals.

A function refers to its globals by name and brings none of their values along. Classes, and functions of anywhere
else that cannot be imported, are cloudpickle's.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from memkit.lifecycle.store.reducers import rebuilder

if TYPE_CHECKING:
    from memkit.lifecycle.store.pickling import Reading

# What a Stored of a rescue keeps, by place: the new kernel's names, what answers a variable by its name, the session.
GLOBALS, VARIABLE, SESSION = range(3)
_ATTRIBUTES = ("__name__", "__qualname__", "__module__", "__doc__", "__defaults__", "__kwdefaults__")
_TYPE_PARAMS = "__type_params__"  # since Python 3.12
# Told apart by identity, so they must come back as the same objects.
_SENTINELS = {
    type(getattr(dataclasses, name)): name
    for name in ("MISSING", "KW_ONLY", "_HAS_DEFAULT_FACTORY")
    if hasattr(dataclasses, name)
}


def reduce_function(function: types.FunctionType) -> Any:
    """A function whose globals are the notebook's."""
    state = {name: getattr(function, name) for name in _ATTRIBUTES}
    state["__annotations__"] = _annotations(function)
    if hasattr(function, _TYPE_PARAMS):
        state[_TYPE_PARAMS] = getattr(function, _TYPE_PARAMS)
    arguments = (function.__code__, function.__closure__)
    return rebuild_function, arguments, (state, dict(function.__dict__)), None, None, finish_function


def _annotations(function: types.FunctionType) -> dict[str, Any]:
    try:
        return dict(function.__annotations__)
    except NameError:  # Python 3.14 evaluates them when asked; the names need not exist
        return {}


@rebuilder
def rebuild_function(reading: Reading, code: types.CodeType, closure: tuple[Any, ...] | None) -> types.FunctionType:
    return types.FunctionType(code, reading.kept[GLOBALS], code.co_name, None, closure)


def finish_function(function: types.FunctionType, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    attributes, own = state
    for name, value in attributes.items():
        setattr(function, name, value)
    function.__dict__.update(own)


def reduce_cell(cell: types.CellType) -> Any:
    """A closure's variable: once, however many functions share it."""
    try:
        content = cell.cell_contents
    except ValueError:  # not bound yet
        return new_cell, ()
    return new_cell, (), (content,), None, None, fill_cell


def new_cell() -> types.CellType:
    return types.CellType()


def fill_cell(cell: types.CellType, state: tuple[Any]) -> None:
    cell.cell_contents = state[0]


def reduce_sentinel(value: object) -> Any:
    return sentinel, (_SENTINELS[type(value)],)


def sentinel(name: str) -> Any:
    return getattr(dataclasses, name)


@rebuilder
def variable(reading: Reading, name: str) -> Any:
    """A function or class that a variable of the notebook holds."""
    return reading.kept[VARIABLE](name)


@rebuilder
def kept(reading: Reading, index: int) -> Any:
    """Something that the next kernel has its own of."""
    return reading.kept[index]


def parts(value: Any) -> list[Any]:
    """What a function or class holds besides its code: closure, defaults, attributes."""
    if isinstance(value, types.FunctionType):
        cells = value.__closure__ or ()
        return [*cells, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values(), *value.__dict__.values()]
    return list(vars(value).values()) if value.__module__ == "__main__" else []


Reducer = Callable[[Any], Any]
REDUCERS: dict[type, Reducer] = {types.CellType: reduce_cell, **dict.fromkeys(_SENTINELS, reduce_sentinel)}
