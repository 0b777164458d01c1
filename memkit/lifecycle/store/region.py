"""Regions of memory that restored buffers live in: private mappings of a file, and fresh anonymous memory.

`mmap.mmap` keeps a duplicated file descriptor for each mapping, one per restored array; these keep none. A region is
given back to the system when the last array, tensor or view on it is gone.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
import weakref
from typing import Any

from memkit.errors import CorruptedError
from memkit.memory.guard import datalimit
from memkit.units import MIB

# Below this a buffer is cheaper to read than to map (two system calls, a fault per page, a page of rounding).
MAPPED_FROM = MIB
_POPULATE_READ = 22  # MADV_POPULATE_READ, linux/mman.h, Linux 5.14
_TRIES = 3  # the guard's watcher may set the limit again in between
_FAILED = ctypes.c_void_p(-1).value
_live: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


class _Mapped(mmap.mmap):
    """A mapping made here, where there is no libc to make it with."""


def _load_libc() -> Any:
    if sys.platform == "win32":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if hasattr(libc, "sync_file_range"):
        libc.sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return libc


_libc = _load_libc()


def alignment() -> int:
    """What a mapping's offset in its file must be a multiple of; at least 4096."""
    return max(4096, mmap.ALLOCATIONGRANULARITY)


def map_file(fd: int, offset: int, length: int) -> Any:
    """A writable private mapping: changed pages are copied, the file never changes. An object with that buffer."""
    if sys.platform == "win32":
        return _Mapped(fd, length, access=mmap.ACCESS_COPY, offset=offset)
    return _map(length, mmap.MAP_PRIVATE, fd, offset)


def fresh(length: int) -> Any:
    """Writable memory of `length` bytes; from a MiB on pages of its own, given back as soon as it is free."""
    if length < MAPPED_FROM or sys.platform == "win32":
        return bytearray(length)
    return _map(length, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)


def _map(length: int, flags: int, fd: int, offset: int) -> Any:
    if sys.platform == "win32":
        raise NotImplementedError
    address = _mmap(length, flags, fd, offset)
    if address == _FAILED:
        code = ctypes.get_errno()
        if code == errno.ENOMEM:
            raise MemoryError(f"no address space for {length} bytes of a restored value")
        raise OSError(code, os.strerror(code))
    region = (ctypes.c_char * length).from_address(address)
    # At interpreter exit arrays may still be in use by other exit functions: the system unmaps then.
    weakref.finalize(region, _libc.munmap, address, length).atexit = False
    _live[address] = region
    return region


def _mmap(length: int, flags: int, fd: int, offset: int) -> Any:
    """A private mapping of a file counts as data although its pages can be had back: a soft limit makes way for it."""
    for _ in range(_TRIES):
        address = _libc.mmap(None, length, mmap.PROT_READ | mmap.PROT_WRITE, flags, fd, offset)
        if address != _FAILED or fd < 0 or not datalimit.widen(length):
            break
    return address


def is_region(owner: object) -> bool:
    """Whether the object is memory made here, which nobody but its arrays can know of."""
    if isinstance(owner, ctypes.Array):
        return _live.get(ctypes.addressof(owner)) is owner
    return isinstance(owner, _Mapped)


def starts_region(address: int) -> bool:
    """Whether a region made here begins at the address."""
    return address in _live


def start_writeback(fd: int) -> None:
    """Have the system begin to write what is dirty, without waiting; what goes wrong then, the next sync reports."""
    if _libc is not None and hasattr(_libc, "sync_file_range"):
        _libc.sync_file_range(fd, 0, 0, 2)  # SYNC_FILE_RANGE_WRITE, sync_file_range(2), Linux


def populate(region: Any, offset: int, length: int) -> bool:
    """Read pages in ahead of use; False where the system cannot. Raises CorruptedError where the file cannot be read.

    A disk that fails while a mapped page is touched kills the process with SIGBUS; this asks first and gets an error.
    """
    if _libc is None or sys.platform != "linux":
        return False
    start = ctypes.addressof(region) + offset
    if _libc.madvise(start, length, _POPULATE_READ) == 0:
        return True
    if ctypes.get_errno() in (errno.EFAULT, errno.EIO):
        raise CorruptedError("its file cannot be read")
    return False
