"""What an object consists of, for the walk that measures it: its own bytes, its buffers, its children."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from types import (
    BuiltinFunctionType,
    CodeType,
    FrameType,
    FunctionType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any
from weakref import ref

from memkit.lifecycle import buffers, peek

# Of a dict or set larger than this only a part is listed: the list alone takes 8 bytes for each element.
_MOST_LISTED = 1_000_000
_PART_LISTED = 250_000
# Machinery that a value may point at without owning it: from there a walk would reach the whole process.
_MACHINERY = frozenset(
    {"IPython", "ipykernel", "traitlets", "comm", "zmq", "tornado", "asyncio", "logging", "threading", "jupyter_client"}
)
_ALONE = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType, CodeType, FrameType, ref)
_PLAIN = frozenset(map(id, (list, tuple, dict, set, frozenset)))

# Type flags of CPython's object.h: objects that the collector tracks, and those that keep attributes inline.
_HAVE_GC, _INLINE_VALUES = 1 << 14, 1 << 4
_HAS_INLINE = sys.version_info >= (3, 11)
_GC_HEADER = sys.getsizeof([]) - list.__sizeof__([])
# Inline attributes take this and a pointer each (measured against tracemalloc: 3.11, 3.12 and 3.13).
_INLINE_HEADER, _POINTER = 24 if sys.version_info >= (3, 13) else 16, 8


@dataclass(frozen=True, slots=True)
class Kind:
    """How objects of one type are measured.

    `is_alone`: counts as itself only. `is_machinery`: likewise where something else points at it. `is_plain`: exactly a
    builtin collection.
    """

    cls: type
    shallow: Callable[[Any], int]
    read: buffers.Reader | None
    is_alone: bool
    is_machinery: bool
    is_plain: bool
    is_inline: bool


@dataclass(frozen=True, slots=True)
class Children:
    """What an object holds: `take(start, stop)` lists the children, `count` of them out of `total`.

    `holders` counts what holds each child during the walk, the list taken not counted. `extra` are bytes of the object
    that Python does not report. Not `exact`: a library would not tell.
    """

    buffers: tuple[buffers.Buffer, ...]
    count: int
    total: int
    holders: int
    take: Callable[[int, int], list[Any]]
    extra: int = 0
    exact: bool = True


def kind_of(cls: type) -> Kind:
    """How to measure objects of a type."""
    read = buffers.reader_for(cls)
    return Kind(
        cls,
        shallow=_basic_size if read is not None or not _reports_in_c(cls) else sys.getsizeof,
        read=read,
        is_alone=peek.is_kind(cls, *_ALONE),
        is_machinery=peek.module_of(cls).partition(".")[0] in _MACHINERY,
        is_plain=id(cls) in _PLAIN,
        is_inline=_HAS_INLINE and bool(_flags(cls) & _INLINE_VALUES),
    )


def _reports_in_c(cls: type) -> bool:
    return type(peek.found_in_class(cls, "__sizeof__")) is MethodDescriptorType


def _flags(cls: type) -> int:
    flags: int = type.__dict__["__flags__"].__get__(cls)
    return flags


def _basic_size(value: Any) -> int:
    """The object without what its type adds for memory elsewhere (which is counted as buffers)."""
    return object.__sizeof__(value) + (_GC_HEADER if _flags(type(value)) & _HAVE_GC else 0)


def is_namespace(value: dict[Any, Any]) -> bool:
    """Whether a dict holds a module's (or the notebook's) names: it belongs to no value."""
    return "__builtins__" in value or "__loader__" in value


def pairs(value: dict[Any, Any], most: int | None = None) -> list[Any]:
    """Keys and values by turns, so that a part of the list stands for the whole.

    The collector itself does not report the keys of a dict that has text keys only.
    """
    return list(chain.from_iterable(islice(dict.items(value), most)))


def children_of(value: Any, kind: Kind) -> Children:
    """What the object holds."""
    if kind.read is not None:
        return _read(value, kind.read)
    if peek.is_kind(kind.cls, list, tuple):
        return _of_sequence(value, kind)
    if peek.is_kind(kind.cls, dict, set, frozenset, deque) and peek.length(value) > _MOST_LISTED:
        return _part_of(value)
    held = peek.referents(value)
    if peek.is_kind(kind.cls, dict):
        held = [*pairs(value), *_attributes(value, kind)]
    is_dict_there = len(held) == 1 and type(held[0]) is dict
    extra = _INLINE_HEADER + _POINTER * len(held) if kind.is_inline and held and not is_dict_there else 0
    return _listed(held, len(held), extra=extra)


def _listed(
    held: Sequence[Any], total: int, found: tuple[buffers.Buffer, ...] = (), extra: int = 0, exact: bool = True
) -> Children:
    return Children(found, len(held), total, 2, lambda start, stop: list(held[start:stop]), extra, exact)


def _read(value: Any, read: buffers.Reader) -> Children:
    try:
        contents = read(value)
    except Exception:  # noqa: BLE001 - a library's code; what it does not tell is walked, and said to be inexact
        return _listed(peek.referents(value), 0, exact=False)
    if contents.elements is not None:
        return _of_array(contents)
    return _listed(contents.objects, len(contents.objects), contents.buffers)


def _attributes(value: Any, kind: Kind) -> list[Any]:
    attributes = None if kind.is_plain else peek.instance_dict(value)
    return [attributes] if attributes else []


def _of_sequence(value: Any, kind: Kind) -> Children:
    base: Any = list if peek.is_kind(kind.cls, list) else tuple
    attributes = _attributes(value, kind)

    def take(start: int, stop: int) -> list[Any]:
        return [*base.__getitem__(value, slice(start, stop)), *([] if start else attributes)]

    count = base.__len__(value)
    return Children((), max(count, len(attributes)), count, 1, take)


def _part_of(value: Any) -> Children:
    """The first elements of a huge dict, set or deque; nothing in Python lists others without listing all."""
    base = next(one for one in (dict, set, frozenset, deque) if peek.is_kind(type(value), one))
    try:
        held = pairs(value, _PART_LISTED) if base is dict else list(islice(base.__iter__(value), _PART_LISTED))
    except RuntimeError:  # another thread changed its size
        held = []
    return _listed(held, peek.length(value) * (2 if base is dict else 1))


def _of_array(contents: buffers.Contents) -> Children:
    """A numpy array of objects, or one with fields of objects."""
    ndarray = sys.modules["numpy"].ndarray
    plain = ndarray.view(contents.elements, ndarray)
    if plain.dtype.names is not None:
        fields = [plain[name] for name in plain.dtype.names if plain.dtype[name].hasobject]
        held = [element for field in fields for element in field.ravel().tolist()]
        return _listed((*held, *contents.objects), len(held) + len(contents.objects), contents.buffers)
    flat = plain.flat

    def take(start: int, stop: int) -> list[Any]:
        return [*flat[start:stop].tolist(), *(() if start else contents.objects)]

    return Children(contents.buffers, max(plain.size, len(contents.objects)), plain.size, 1, take)
