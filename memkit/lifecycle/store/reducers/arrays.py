"""numpy arrays: an owner of memory as its buffer, a view as its owner, an offset and strides.

Views of one owner share it again after a restoration, as they did before.
"""

from __future__ import annotations

import itertools
import pickle
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from memkit.errors import DemotionError
from memkit.lifecycle.store.reducers import Reducer, rebuilder
from memkit.lifecycle.store.region import is_region
from memkit.units import KIB

if TYPE_CHECKING:
    from memkit.lifecycle.store.pickling import Reading, Writing

# Kinds whose elements are the bytes in the buffer; variable-width strings ("T") and objects ("O") are elsewhere.
_PLAIN_KINDS = frozenset("biufcmMSUV")
_PICKLED_BY = ("__reduce__", "__reduce_ex__", "__setstate__")
_BATCH = 8192
_SMALL = 16 * KIB  # lists of small arrays are long: theirs is a way of half the cost


def _numpy() -> Any:
    return sys.modules["numpy"]


def reducer(cls: type) -> Reducer | None:
    np = _numpy()
    if not issubclass(cls, np.ndarray):
        return None
    inherited = all(getattr(cls, name) is getattr(np.ndarray, name) for name in _PICKLED_BY)
    masked = "numpy.ma" in sys.modules and cls is np.ma.MaskedArray
    return _reduce if inherited or masked else None


def root_of(array: Any) -> Any:
    """The array at the end of the chain of views."""
    np = _numpy()
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def exporter_of(root: Any) -> Any:
    """The object, no array, whose memory the root array shows; None where the array owns it."""
    base = root.base
    while isinstance(base, memoryview):
        base = base.obj
    return base


def is_tensor(value: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def is_foreign(root: Any) -> bool:
    """Whether the memory belongs to an object that cannot be followed: a mapped file, another library's buffer."""
    exporter = exporter_of(root)
    if exporter is None:
        return not root.flags.owndata and root.size > 0
    return not (is_region(exporter) or type(exporter) in (bytes, bytearray) or is_tensor(exporter))


def flat_bytes(array: Any) -> Any:
    """A dense array's memory as uint8, in address order, without a copy; None where it has gaps."""
    flat = flat_elements(array)
    return None if flat is None else flat.view(_numpy().uint8)


def flat_elements(array: Any) -> Any:
    """A dense array's elements in address order, without a copy; None where it has gaps or runs backwards."""
    plain = array.view(_numpy().ndarray) if type(array) is not _numpy().ndarray else array
    if not plain.flags.c_contiguous:
        plain = plain.transpose(sorted(range(plain.ndim), key=lambda axis: -plain.strides[axis]))
        if not plain.flags.c_contiguous:
            return None
    return plain.reshape(-1)


def _reduce(array: Any, writing: Writing) -> Any:
    np = _numpy()
    if 0 < array.nbytes < _SMALL and type(array) is np.ndarray and _is_simple(array):
        return rebuild_small, (pickle.PickleBuffer(array), array.dtype, array.shape)
    root = root_of(array)
    objects = array.dtype.kind == "O"
    if array.nbytes == 0:
        return (rebuild_empty, (type(array), array.dtype, array.shape, array.flags.writeable), *_state(array))
    if not _is_followable(array.dtype) or not _is_followable(root.dtype):
        return _reduce_as_numpy(array, root)
    if array is not root:
        return _reduce_view(array, root)
    exporter = exporter_of(root)
    if is_tensor(exporter):
        return _reduce_view(array, exporter.untyped_storage())
    if type(exporter) in (bytes, bytearray):
        return _reduce_view(array, exporter)
    if type(array) is not np.ndarray and objects:
        return NotImplemented
    return _reduce_objects(array) if objects else _reduce_owner(array, writing)


def _is_simple(array: Any) -> bool:
    """An owner of plain numbers in C order: nothing but its bytes, type and shape needs to be told."""
    flags = array.flags
    return array.dtype.kind in "biufc" and flags.owndata and flags.c_contiguous and flags.writeable and flags.aligned


@rebuilder
def rebuild_small(reading: Reading, data: Any, dtype: Any, shape: tuple[int, ...]) -> Any:
    return _numpy().ndarray(shape, dtype, data).copy()


def _is_followable(dtype: Any) -> bool:
    """Whether elements are bytes in the buffer, or are all objects; not a mixture, nor strings of any length."""
    return bool(dtype.kind == "O" or (dtype.kind in _PLAIN_KINDS and not dtype.hasobject))


def _reduce_as_numpy(array: Any, root: Any) -> Any:
    if array is not root:
        raise DemotionError(f"a view of an array of {root.dtype} cannot be written so that it stays a view")
    return NotImplemented


def _state(array: Any) -> tuple[Any, ...]:
    """The end of a reduction: a subclass' own attributes, if it has any."""
    attributes = getattr(array, "__dict__", None)
    return (dict(attributes), None, None, set_attributes) if attributes else ()


def set_attributes(value: Any, attributes: dict[str, Any]) -> None:
    """Attributes as they were, past any `__setstate__`."""
    value.__dict__.update(attributes)


@rebuilder
def rebuild_empty(reading: Reading, cls: type, dtype: Any, shape: tuple[int, ...], writeable: bool) -> Any:
    array = _numpy().ndarray.__new__(cls, shape, dtype)
    array.flags.writeable = writeable
    return array


def _reduce_owner(array: Any, writing: Writing) -> Any:
    flat = flat_bytes(array)
    if flat is None:
        return NotImplemented
    reference = writing.buffer(memoryview(flat))
    arguments = (type(array), reference, array.dtype, array.shape, array.strides, array.flags.writeable)
    return (rebuild_owner, arguments, *_state(array))


@rebuilder
def rebuild_owner(
    reading: Reading,
    cls: type,
    reference: Any,
    dtype: Any,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    writeable: bool,
) -> Any:
    memory = reading.buffer(reference)
    array = _numpy().ndarray.__new__(cls, shape, dtype, memory, 0, strides)
    if not is_region(memory):
        array = array.copy(order="K")  # small: owns its memory again, and bytes are read-only
        if dtype.names is not None:  # a copy leaves out the bytes between fields
            flat_bytes(array)[:] = _numpy().frombuffer(memory, "u1")
    array.flags.writeable = writeable
    return array


def _address(exporter: Any) -> int:
    np = _numpy()
    return int(np.frombuffer(exporter, np.uint8).__array_interface__["data"][0]) if len(exporter) else 0


def _start(owner: Any) -> int:
    if isinstance(owner, _numpy().ndarray):
        return int(owner.ctypes.data)
    return _address(owner) if type(owner) in (bytes, bytearray) else int(owner.data_ptr())


def _reduce_view(array: Any, owner: Any) -> Any:
    if isinstance(owner, _numpy().ndarray) and flat_elements(owner) is None:
        raise DemotionError("a view of an array whose memory has gaps cannot be written so that it stays a view")
    offset = array.ctypes.data - _start(owner)
    arguments = (type(array), owner, array.dtype, offset, array.shape, array.strides, array.flags.writeable)
    return (rebuild_view, arguments, *_state(array))


@rebuilder
def rebuild_view(
    reading: Reading,
    cls: type,
    owner: Any,
    dtype: Any,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    writeable: bool,
) -> Any:
    locked = isinstance(owner, _numpy().ndarray) and writeable and not owner.flags.writeable
    if locked:
        owner.flags.writeable = True  # a view may be writeable where its owner no longer is
    array = _numpy().ndarray.__new__(cls, shape, dtype, _memory(owner), offset, strides)
    if locked:
        owner.flags.writeable = False
    if not writeable:
        array.flags.writeable = False
    return array


def _memory(owner: Any) -> Any:
    """What a view can be made on: the owner's bytes, or its elements where they are objects."""
    if isinstance(owner, _numpy().ndarray):
        return flat_elements(owner) if owner.dtype.hasobject else flat_bytes(owner)
    if type(owner) in (bytes, bytearray):
        return owner
    torch = sys.modules["torch"]
    return torch.empty(0, dtype=torch.uint8).set_(owner, 0, (owner.nbytes(),), (1,)).numpy()


class _Items:
    """Stands for an object array's elements in a pickle, so that they are written one by one, never as one list."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __reduce__(self) -> Any:
        return Filler, (self.array,), None, _elements(self.array)


def _elements(array: Any) -> Iterator[Any]:
    flat = flat_elements(array)
    return itertools.chain.from_iterable(flat[i : i + _BATCH].tolist() for i in range(0, len(flat), _BATCH))


class Filler:
    """Takes elements in the batches in which pickle reads them."""

    def __init__(self, array: Any) -> None:
        self._flat = flat_elements(array)
        self._next = 0

    def extend(self, batch: list[Any]) -> None:
        # fromiter takes each element as it is; assigning a list would look into elements that are sequences.
        self._flat[self._next : self._next + len(batch)] = _numpy().fromiter(batch, object, len(batch))
        self._next += len(batch)

    def append(self, item: Any) -> None:
        self.extend([item])


def _reduce_objects(array: Any) -> Any:
    if flat_elements(array) is None:
        return NotImplemented
    order = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
    arguments = (array.shape, tuple(order))
    return rebuild_objects, arguments, (_Items(array), array.flags.writeable), None, None, finish_objects


@rebuilder
def rebuild_objects(reading: Reading, shape: tuple[int, ...], order: tuple[int, ...]) -> Any:
    np = _numpy()
    if order == tuple(range(len(shape))):
        return np.empty(shape, object)
    return np.empty([shape[axis] for axis in order], object).transpose(np.argsort(order))


def finish_objects(array: Any, state: tuple[Any, bool]) -> None:
    array.flags.writeable = state[1]
