"""What hangs from a value, object by object: how each kind is gone into, and its own bytes.

numpy arrays and torch tensors hide what they hold from the garbage collector; here it is told.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import itertools
import mmap
import re
import sys
import types
import uuid
import weakref
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

from memkit.lifecycle.store.reducers import arrays, images

_ATOMS = frozenset({
    type(None), bool, int, float, complex, type(...), type(NotImplemented), range, slice, property,
    types.FunctionType, types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType,
    types.CodeType, types.GetSetDescriptorType, types.MemberDescriptorType, datetime.date, datetime.time,
    datetime.datetime, datetime.timedelta, datetime.timezone, decimal.Decimal, fractions.Fraction, uuid.UUID,
    re.Pattern,
})  # fmt: skip


_BATCH = 4096


class Kind(Enum):
    """How an object is gone into. An atom is not: it is immutable, and a copy of it is the same to everybody."""

    ATOM = 0
    TEXT = 1  # an atom that may be large: str, bytes
    PLAIN = 2  # the garbage collector knows what it holds
    CONTAINER = 3  # the same, and it may be long: list, tuple, set, dict
    ARRAY = 4
    TENSOR = 5


LEAVES = frozenset({Kind.ATOM, Kind.TEXT})


Sizer = Callable[[Any], int]


class Sizers(dict[type, Sizer]):
    """How to tell the own bytes of objects of a type, found once."""

    def __missing__(self, cls: type) -> Sizer:
        sizer = self[cls] = _sizer(cls)
        return sizer


class Kinds(dict[type, Kind]):
    """The kind of each type, found once; for one survey, so that no class is kept alive."""

    def __init__(self) -> None:
        super().__init__()
        self.sizers = Sizers()

    def __missing__(self, cls: type) -> Kind:
        kind = self[cls] = _kind(cls)
        return kind


def _kind(cls: type) -> Kind:
    if cls in (str, bytes):
        return Kind.TEXT
    if cls in (list, tuple, set, frozenset, dict):
        return Kind.CONTAINER
    if cls in _ATOMS or issubclass(cls, (type, types.ModuleType, weakref.ref, Enum)) or _is_library_atom(cls):
        return Kind.ATOM
    np, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if np is not None and issubclass(cls, np.ndarray):
        return Kind.ARRAY
    return Kind.TENSOR if torch is not None and issubclass(cls, torch.Tensor) else Kind.PLAIN


def _is_library_atom(cls: type) -> bool:
    """numpy's scalars and dtypes, torch's dtypes and devices, pyarrow's types."""
    np, torch, arrow = (sys.modules.get(name) for name in ("numpy", "torch", "pyarrow"))
    return (
        (np is not None and issubclass(cls, (np.generic, np.dtype, np.ufunc)) and not issubclass(cls, np.void))
        or (torch is not None and issubclass(cls, (torch.dtype, torch.device, torch.layout)))
        or (arrow is not None and issubclass(cls, (arrow.DataType, arrow.Schema, arrow.Field)))
    )


def members(container: Any) -> Iterator[list[Any]]:
    """What a long container holds, in batches."""
    every = itertools.chain(container.keys(), container.values()) if isinstance(container, dict) else iter(container)
    return iter(lambda: list(itertools.islice(every, _BATCH)), [])


def elements(array: Any) -> Iterator[list[Any]]:
    """The Python objects that an array owns, in batches."""
    if array.dtype.hasobject and arrays.root_of(array) is array:
        for leaf in _object_fields(array):
            flat = arrays.flat_elements(leaf)
            if flat is None:
                yield from members(leaf.flat)
            else:
                yield from (flat[i : i + _BATCH].tolist() for i in range(0, len(flat), _BATCH))


def _object_fields(array: Any) -> Iterator[Any]:
    """The parts of an array whose elements are objects: the array, or fields of its structure."""
    if array.dtype.names is None:
        yield from (array,) if array.dtype == object else ()
        return
    for name in array.dtype.names:
        if array.dtype[name].hasobject:
            yield from _object_fields(array[name])


def own_bytes(item: Any, kinds: Kinds) -> int:
    """The bytes of the object itself, without those of what it refers to; a storage is not its tensors'."""
    if kinds[type(item)] is Kind.ARRAY:
        owns = arrays.root_of(item) is item and not isinstance(arrays.exporter_of(item), (mmap.mmap, bytes, bytearray))
        return type(item).__basicsize__ + (int(item.nbytes) if owns and not arrays.is_tensor(item.base) else 0)
    return kinds.sizers[type(item)](item)


def _sizer(cls: type) -> Sizer:
    """How to tell an object's own bytes. `__sizeof__` is asked of built-in types only: pandas' counts everything."""
    pil, arrow = sys.modules.get("PIL.Image"), sys.modules.get("pyarrow")
    if pil is not None and issubclass(cls, pil.Image):
        return images.pixel_bytes
    if arrow is not None and issubclass(cls, arrow.Buffer):
        return lambda buffer: int(buffer.size)
    if arrow is not None and issubclass(cls, (arrow.Array, arrow.ChunkedArray, arrow.Table, arrow.RecordBatch)):
        return lambda array: int(array.nbytes)
    if cls.__module__ in ("builtins", "collections", "array"):
        return sys.getsizeof
    return lambda item: cls.__basicsize__
