"""The pickle, as pickle's C code writes and reads it: a file made of blocks, of which one is in memory at a time."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from memkit.units import MIB

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

STREAM_BLOCK = 2 * MIB


class StreamWriter:
    """Collects what pickle writes and hands it on in blocks of 2 MiB."""

    def __init__(self, emit: Callable[[memoryview], None]) -> None:
        self._emit = emit
        self._buffer = bytearray(STREAM_BLOCK)
        self._used = 0

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            count = min(len(view) - done, STREAM_BLOCK - self._used)
            self._buffer[self._used : self._used + count] = view[done : done + count]
            self._used += count
            done += count
            if self._used == STREAM_BLOCK:
                self.flush()
        return len(view)

    def flush(self) -> None:
        if self._used:
            used, self._used = self._used, 0
            self._emit(memoryview(self._buffer)[:used])


class StreamReader(io.RawIOBase):
    """Reads blocks one after the other; wrap in `io.BufferedReader` for pickle."""

    def __init__(self, blocks: Iterator[memoryview]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target: WriteableBuffer) -> int:
        if not self._rest:
            self._rest = next(self._blocks, memoryview(b""))
        view = memoryview(target).cast("B")
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
