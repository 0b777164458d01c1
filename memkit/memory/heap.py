"""Giving freed memory back to the operating system."""

from __future__ import annotations

import ctypes
import functools
import gc
import logging
import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memkit.units import KIB

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)
# glibc's malloc.h. Unset, the mmap threshold grows up to 32 MiB with the first large free, and later large blocks
# stay in the heap after they are freed.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_THRESHOLD = 256 * KIB


@dataclass(frozen=True, slots=True)
class Allocator:
    """The C allocator's name and its two switches; None where it has none."""

    name: str
    mallopt: Callable[[int, int], int] | None = None
    trim: Callable[[int], int] | None = None


@functools.cache
def allocator() -> Allocator:
    """The C allocator of this process: only glibc's can be told to give memory back."""
    try:
        version = os.confstr("CS_GNU_LIBC_VERSION") or "glibc"
        library = ctypes.CDLL(None)
        return Allocator(version, library.mallopt, library.malloc_trim)
    except (AttributeError, ValueError, OSError, TypeError):  # Windows, macOS, musl: unknown question or symbol
        return Allocator(f"the C library of {sys.platform}, which gives memory back by itself or not at all")


def tune() -> bool:
    """Make large blocks return to the system as soon as they are freed; False where the allocator has no such switch.

    To be called once, before memory is used: blocks that exist already keep their place.
    """
    mallopt = allocator().mallopt
    if mallopt is None:
        return False
    # One arena: those of threads keep what is freed, and grow when the main one may not. Small blocks have a cache for
    # each thread anyhow, large ones pages of their own.
    wishes = {_M_MMAP_THRESHOLD: _THRESHOLD, _M_TRIM_THRESHOLD: _THRESHOLD, _M_ARENA_MAX: 1}
    done = [mallopt(parameter, value) for parameter, value in wishes.items()]
    return all(done)


def trim() -> bool:
    """Give free heap back (about 50 ms per GB), also pyarrow's and torch's; False where the C heap cannot be trimmed.

    Other threads run meanwhile. What foreign pools raise is logged.
    """
    for name, release in _POOLS.items():
        library = sys.modules.get(name)
        if library is not None:
            _quietly(name, release, library)
    cut = allocator().trim
    if cut is None:
        return False
    cut(0)
    return True


def give_back(collect: bool = True) -> float:
    """Collect garbage (cycles only), then trim; the seconds it took."""
    start = time.perf_counter()
    if collect:
        gc.collect()
    trim()
    return time.perf_counter() - start


def _quietly(name: str, release: Callable[[Any], None], library: Any) -> None:
    try:
        release(library)
    except Exception:  # noqa: BLE001  foreign pools; trimming the C heap must still happen
        _log.debug("%s could not release its unused memory", name, exc_info=True)


def _release_pyarrow(pyarrow: Any) -> None:
    pyarrow.default_memory_pool().release_unused()


def _release_torch(torch: Any) -> None:
    if torch.cuda.is_initialized():  # asking more would create a context
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


_POOLS: dict[str, Callable[[Any], None]] = {"pyarrow": _release_pyarrow, "torch": _release_torch}
