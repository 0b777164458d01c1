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
    # Not immutable at all, but they cannot be written down, and a frame leads to everything there is.
    types.FrameType, types.TracebackType, types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType,
})  # fmt: skip


_BATCH = 4096


# How an object is gone into. An atom is not: it is immutable, and a copy of it is the same to everybody. Plain numbers:
# an enumeration's members are hashed and looked up by Python code, which made the walk three times as slow.
ATOM = 0
TEXT = 1  # an atom that may be large: str, bytes
PLAIN = 2  # the garbage collector knows what it holds
CONTAINER = 3  # the same, and it may be long: list, tuple, set, dict
ARRAY = 4
TENSOR = 5


Sizer = Callable[[Any], int]


class Sizers(dict[type, Sizer]):
    """How to tell the own bytes of objects of a type, found once."""

    def __missing__(self, cls: type) -> Sizer:
        sizer = self[cls] = _sizer(cls)
        return sizer


class Kinds(dict[type, int]):
    """The kind of each type, found once; for one survey, so that no class is kept alive."""

    def __init__(self) -> None:
        super().__init__()
        self.sizers = Sizers()

    def __missing__(self, cls: type) -> int:
        kind = self[cls] = _kind(cls)
        return kind


def _kind(cls: type) -> int:
    if cls in (str, bytes):
        return TEXT
    if cls in (list, tuple, set, frozenset, dict):
        return CONTAINER
    if cls in _ATOMS or issubclass(cls, (type, types.ModuleType, weakref.ref, Enum)) or _is_library_atom(cls):
        return ATOM
    np, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if np is not None and issubclass(cls, np.ndarray):
        return ARRAY
    return TENSOR if torch is not None and issubclass(cls, torch.Tensor) else PLAIN


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
    for leaf in _object_fields(array):
        flat = arrays.flat_elements(leaf)
        if flat is None:
            yield from members(leaf.flat)
        else:
            yield from (flat[i : i + _BATCH].tolist() for i in range(0, len(flat), _BATCH))


def longest_text(array: Any) -> int | None:
    """The length of the longest text in an array that holds nothing but texts and missing values, as most columns do.

    None where it holds anything else, or that cannot be told quickly. pandas' own loops take 12 ns per element, a
    walk 75.
    """
    writers = sys.modules.get("pandas._libs.writers")
    flat = arrays.flat_elements(array) if writers is not None and array.flags.writeable else None
    if writers is None or flat is None or not hasattr(writers, "max_len_string_array"):
        return None
    if sys.modules["pandas"].api.types.infer_dtype(flat, skipna=True) != "string":
        return None
    return int(writers.max_len_string_array(flat))


def _object_fields(array: Any) -> Iterator[Any]:
    """The parts of an array whose elements are objects: the array, or fields of its structure."""
    if array.dtype.names is None:
        yield from (array,) if array.dtype == object else ()
        return
    for name in array.dtype.names:
        if array.dtype[name].hasobject:
            yield from _object_fields(array[name])


def _array_bytes(array: Any) -> int:
    """What an array takes by itself; not where it shows the memory of another array, a tensor, bytes or a file."""
    exporter = arrays.exporter_of(array)
    owns = arrays.root_of(array) is array and not isinstance(exporter, (mmap.mmap, bytes, bytearray))
    return type(array).__basicsize__ + (int(array.nbytes) if owns and not arrays.is_tensor(exporter) else 0)


def _sizer(cls: type) -> Sizer:
    """How to tell an object's own bytes. `__sizeof__` is asked of built-in types only: pandas' counts everything."""
    if _kind(cls) == ARRAY:
        return _array_bytes
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
