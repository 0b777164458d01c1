"""Memory that a value of a known library keeps outside Python's own objects: arrays, tensors, columns, images.

Libraries are looked up in `sys.modules`: a value of a library exists only where it is loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from mmap import mmap
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, NamedTuple

from memkit.lifecycle import peek


class Buffer(NamedTuple):
    """One block of memory: where it starts (the same for every value that shares it) and its size in bytes.

    Where the place is not known it is told from others by the object that owns it: the negative of its id.
    """

    address: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Contents:
    """What a value holds: buffers, and Python objects to look into in turn."""

    buffers: tuple[Buffer, ...] = ()
    objects: tuple[Any, ...] = ()
    elements: Any = None  # a numpy object array, whose elements are Python objects


Reader = Callable[[Any], Contents]


def reader_for(kind: type) -> Reader | None:
    """How to read the memory behind values of a type, or None where walking its references says all."""
    for base in peek.mro(kind):
        entry = _READERS.get(type.__dict__["__name__"].__get__(base))
        if entry is not None and _is_library_class(base, *entry[:2]):
            return entry[2]
    return _nbytes_reader(kind)


def _is_library_class(kind: type, library: str, name: str) -> bool:
    module = sys.modules.get(library)
    found = None if module is None else vars(module).get(name)
    # The guard puts a subclass in the place of `mmap.mmap`; what was made before is an instance of the real one.
    return found is kind or (name == "mmap" and found is not None and kind is peek.mro(found)[-2])


def numpy_owner(array: Any) -> tuple[Any, Any]:
    """The array at the end of the chain of views, and what that one borrows its memory from (None: its own)."""
    numpy = sys.modules["numpy"]
    base_of = numpy.ndarray.base.__get__
    while True:
        base = base_of(array)
        if base is None or not peek.is_kind(type(base), numpy.ndarray):
            return array, base
        array = base


def _numpy(value: Any) -> Contents:
    ndarray = sys.modules["numpy"].ndarray
    owner, lender = numpy_owner(value)
    address = ndarray.__array_interface__.__get__(owner)["data"][0]
    attributes = tuple(peek.referents(value)) if type(value) is not ndarray else ()
    if lender is None or not (peek.is_kind(type(lender), *_LENDERS) or reader_for(type(lender))):
        elements = owner if ndarray.dtype.__get__(owner).hasobject else None
        return Contents((Buffer(address, ndarray.nbytes.__get__(owner)),), attributes, elements)
    return Contents((), (lender, *attributes))


_LENDERS = (bytes, bytearray, memoryview, mmap)


def _memoryview(value: memoryview) -> Contents:
    return Contents((), (value.obj,))


def _mmap(value: mmap) -> Contents:
    """A mapped file takes no memory that could not be taken back at once (its pages are file-backed): 0 bytes.

    Only an anonymous mapping has no file whose size could be asked.
    """
    try:
        mmap.size(value)
    except OSError:
        return Contents((Buffer(-id(value), mmap.__len__(value)),))
    except ValueError:  # closed, or made with trackfd=False
        return Contents()
    return Contents()


def _torch(value: Any) -> Contents:
    """Storage counts whole and once, on whatever device; subclasses' `__torch_function__` is kept out."""
    torch = sys.modules["torch"]
    attributes = tuple(peek.referents(value))
    with torch._C.DisableTorchFunctionSubclass():
        try:
            parts = list(_strided_parts(torch, value))
            storages = [torch._C.TensorBase.untyped_storage(part) for part in parts]
            buffers = tuple(Buffer(s.data_ptr(), s.nbytes()) for s in storages if s.device.type != "meta")
            is_leaf = torch._C.TensorBase.is_leaf.__get__(value)
            gradient = torch._C.TensorBase.grad.__get__(value) if is_leaf else None
        except (RuntimeError, NotImplementedError, AttributeError):  # no storage: functional and wrapped tensors
            return Contents((), attributes)
    return Contents(buffers, attributes if gradient is None else (*attributes, gradient))


def _strided_parts(torch: Any, value: Any) -> Iterator[Any]:
    base = torch._C.TensorBase
    layout = base.layout.__get__(value)
    if layout is torch.strided:
        yield value
    elif layout is torch.sparse_coo:
        yield from (base._indices(value), base._values(value))
    elif layout in (torch.sparse_csr, torch.sparse_bsr):
        yield from (base.crow_indices(value), base.col_indices(value), base.values(value))
    elif layout in (torch.sparse_csc, torch.sparse_bsc):
        yield from (base.ccol_indices(value), base.row_indices(value), base.values(value))


def _torch_storage(value: Any) -> Contents:
    return Contents((Buffer(value.data_ptr(), value.nbytes()),))


def _arrow_table(value: Any) -> Contents:
    return Contents((), tuple(value.columns))


def _arrow_chunks(value: Any) -> Contents:
    return Contents((), tuple(value.chunks))


def _arrow_array(value: Any) -> Contents:
    arrow = sys.modules["pyarrow"]
    is_extension = peek.is_kind(type(value), arrow.ExtensionArray)
    storage = arrow.ExtensionArray.storage.__get__(value) if is_extension else value
    dictionary = (storage.dictionary,) if peek.is_kind(type(storage), arrow.DictionaryArray) else ()
    return Contents((), (*(one for one in arrow.Array.buffers(storage) if one is not None), *dictionary))


def _arrow_buffer(value: Any) -> Contents:
    while value.parent is not None:  # a slice keeps the whole buffer
        value = value.parent
    return Contents((Buffer(value.address, value.size),))


def _polars(value: Any) -> Contents:
    polars = sys.modules["polars"]
    library = polars.DataFrame if peek.is_kind(type(value), polars.DataFrame) else polars.Series
    return Contents((Buffer(-id(value), library.estimated_size(value)),))


# Bytes per pixel as Pillow stores them; three bands take four bytes (pixelsize in its C sources, Storage.c).
_PIXEL_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}


def _pillow(value: Any) -> Contents:
    core = peek.attribute(value, "_im") or peek.attribute(value, "im")
    held = tuple(one for one in peek.referents(value) if one is not core)
    if core is None or not hasattr(type(core), "mode"):  # a file not read yet
        return Contents((), held)
    width, height = core.size
    return Contents((Buffer(-id(core), width * height * _PIXEL_BYTES.get(core.mode, 4)),), held)


_READERS: dict[str, tuple[str, str, Reader]] = {
    "ndarray": ("numpy", "ndarray", _numpy),
    "memoryview": ("builtins", "memoryview", _memoryview),
    "mmap": ("mmap", "mmap", _mmap),
    "Tensor": ("torch", "Tensor", _torch),
    "UntypedStorage": ("torch", "UntypedStorage", _torch_storage),
    "TypedStorage": ("torch", "TypedStorage", _torch_storage),
    "Table": ("pyarrow", "Table", _arrow_table),
    "RecordBatch": ("pyarrow", "RecordBatch", _arrow_table),
    "ChunkedArray": ("pyarrow", "ChunkedArray", _arrow_chunks),
    "Array": ("pyarrow", "Array", _arrow_array),
    "Buffer": ("pyarrow", "Buffer", _arrow_buffer),
    "DataFrame": ("polars", "DataFrame", _polars),
    "Series": ("polars", "Series", _polars),
    "Image": ("PIL.Image", "Image", _pillow),
}


def _nbytes_reader(kind: type) -> Reader | None:
    """`nbytes` of a type not known here: C code's own, or an installed library's; never that of the user's classes."""
    descriptor = peek.found_in_class(kind, "nbytes")
    if type(descriptor) in (GetSetDescriptorType, MemberDescriptorType):
        return lambda value: _by_nbytes(value, descriptor)
    if type(descriptor) is property and is_installed(peek.module_of(kind)):
        return lambda value: _by_property(value, descriptor)
    return None


def _by_property(value: Any, descriptor: Any) -> Contents:
    """Only an object that refers to nothing is asked: what others say may be on a disk, or in what they refer to."""
    held = tuple(peek.referents(value))
    return Contents((), held) if held else _by_nbytes(value, descriptor)


def _by_nbytes(value: Any, descriptor: Any) -> Contents:
    held = tuple(peek.referents(value))
    try:
        count = descriptor.__get__(value, type(value))
    except Exception:  # noqa: BLE001 - a library's code; a size it cannot tell is walked instead
        return Contents((), held)
    return Contents((Buffer(-id(value), count),)) if type(count) is int and count >= 0 else Contents((), held)


def is_installed(module: str) -> bool:
    """Whether a module belongs to an installed package, as opposed to the notebook or the user's own files."""
    if module == "__main__" or module not in sys.modules:
        return False
    return _is_in_packages(getattr(vars(sys.modules[module]).get("__spec__"), "origin", None))


@lru_cache(maxsize=1024)
def _is_in_packages(origin: str | None) -> bool:
    return type(origin) is str and any(part in origin for part in ("site-packages", "dist-packages"))
