"""Buffers and the pickle stream become blocks at some place, compressed where that pays there."""

from __future__ import annotations

from typing import Protocol

from memkit.errors import NotWorthwhileError
from memkit.lifecycle.store.codec import BLOCK, Packer, digests, pieces
from memkit.lifecycle.store.failures import Cancel
from memkit.lifecycle.store.region import MAPPED_FROM
from memkit.lifecycle.store.stored import Block, Cancelled, Chunk, Compress, Layout
from memkit.units import MIB, format_bytes

# On disk a buffer rests as it is unless it shrinks below this share. Measured: zstd packs 250-900 and unpacks 700-2000
# MB/s, slower than most disks move raw bytes; and a raw buffer comes back as a mapping, which takes no memory of its
# own until it is changed. Only what nearly vanishes is worth both.
_BUFFER_SHARE = 0.1
# The pickle stream is never mapped. What packs to a third packs at 280 and unpacks at 300 MB/s, slower than any SSD;
# what packs to less than a fifth (repeated records, text) does so three times as fast.
_STREAM_SHARE = 0.2
# What samples say of less than this is noise.
_SAMPLED_FROM = MIB


class Place(Protocol):
    """Where blocks rest."""

    def put(self, data: bytes | memoryview) -> int:
        """Keep the bytes; answers where."""

    def put_raw(self, view: memoryview, cancelled: Cancel) -> Block:
        """Keep a whole buffer as it is."""


class Choice(Protocol):
    """Which buffers and stream blocks are packed."""

    def packs_buffer(self, packer: Packer, view: memoryview, stored: int) -> bool: ...

    def packs_stream(self, packer: Packer, view: memoryview, stored: int) -> bool: ...


class DiskChoice:
    """What shrinks to almost nothing is packed on disk; or everything, or nothing."""

    def __init__(self, mode: Compress) -> None:
        self._mode = mode

    def packs_buffer(self, packer: Packer, view: memoryview, stored: int) -> bool:
        # Zeros become holes in the file: free on disk too, and still mapped when they come back.
        return self._packs(packer, view, _BUFFER_SHARE) and not (self._mode == "auto" and packer.is_blank(view))

    def packs_stream(self, packer: Packer, view: memoryview, stored: int) -> bool:
        return self._packs(packer, view, _STREAM_SHARE)

    def _packs(self, packer: Packer, view: memoryview, share: float) -> bool:
        if self._mode != "auto":
            return self._mode == "always"
        return packer.ratio(view) <= share


class MemoryChoice:
    """Everything is packed; given up, with NotWorthwhileError, as soon as more than `allowed` bytes would be kept."""

    def __init__(self, names: tuple[str, ...], allowed: float) -> None:
        self._names = names
        self._allowed = allowed

    def packs_buffer(self, packer: Packer, view: memoryview, stored: int) -> bool:
        expected = packer.ratio(view) * len(view) if len(view) >= _SAMPLED_FROM else 0.0
        self.check(int(stored + expected))
        return True

    def packs_stream(self, packer: Packer, view: memoryview, stored: int) -> bool:
        self.check(stored)
        return True

    def check(self, stored: int) -> None:
        if stored > self._allowed:
            names, most = ", ".join(self._names), format_bytes(self._allowed)
            raise NotWorthwhileError(f"{names}: packed it would still take {format_bytes(stored)}, over {most}")


class Writer:
    """Puts one value's buffers and stream at a place, and notes where. One thread at a time."""

    def __init__(self, place: Place, choice: Choice, cancelled: Cancel) -> None:
        self._place = place
        self._choice = choice
        self._cancelled = cancelled
        self._packer = Packer()
        self._chunks: list[Chunk] = []
        self._stream: list[Block] = []
        self._foreign: list[int] = []
        self.raw_bytes = 0
        self.stored_bytes = 0
        self.mapped_bytes = 0

    def layout(self) -> Layout:
        return Layout(tuple(self._stream), tuple(self._chunks), tuple(self._foreign))

    def buffer(self, view: memoryview, copied: bool = False) -> int:
        """Write one buffer from where it is in memory; answers its index. `copied`: its rebuilder copies it."""
        packs = self._choice.packs_buffer(self._packer, view, self.stored_bytes)
        blocks = tuple(self._block(p, True) for p in pieces(view, BLOCK)) if packs else (self._raw(view, copied),)
        self._chunks.append(Chunk(blocks, len(view)))
        return len(self._chunks) - 1

    def foreign_buffer(self, view: memoryview) -> None:
        """Write a buffer that a library handed to pickle itself."""
        self._foreign.append(self.buffer(view))

    def stream_block(self, view: memoryview) -> None:
        """Write the next part of the pickle stream."""
        self._stream.append(self._block(view, self._choice.packs_stream(self._packer, view, self.stored_bytes)))

    def _raw(self, view: memoryview, copied: bool) -> Block:
        block = self._place.put_raw(view, self._cancelled)
        self._count(block)
        self.mapped_bytes += block.raw if block.raw >= MAPPED_FROM and not copied else 0
        return block

    def _block(self, view: memoryview, packs: bool) -> Block:
        if self._cancelled():
            raise Cancelled("cancelled while it was being written; left in memory")
        packed = self._packer.pack(view) if packs else b""
        smaller = packs and len(packed) < len(view)
        # Bytes, never the live memory: a checksum must be of what was written, whoever changes the value meanwhile.
        data = packed if smaller else bytes(view)
        block = Block(self._place.put(data), len(data), len(view), smaller, digests(memoryview(data)))
        self._count(block)
        return block

    def _count(self, block: Block) -> None:
        self.raw_bytes += block.raw
        self.stored_bytes += block.stored
