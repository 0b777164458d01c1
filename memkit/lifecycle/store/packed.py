"""One value's blocks in memory, and reading them back."""

from __future__ import annotations

from typing import Any

from memkit.lifecycle.store.codec import check, digests, unpack_into
from memkit.lifecycle.store.failures import Cancel, never
from memkit.lifecycle.store.region import fresh
from memkit.lifecycle.store.stored import Block, Cancelled, Chunk


class PackedBlocks:
    """Keeps blocks as bytes objects; a block's offset is its place in the list."""

    def __init__(self) -> None:
        self.blocks: list[bytes] = []

    def put(self, data: bytes | memoryview) -> int:
        self.blocks.append(bytes(data))
        return len(self.blocks) - 1

    def put_raw(self, view: memoryview, cancelled: Cancel) -> Block:
        return Block(self.put(view), len(view), len(view), False, digests(view))


class PackedSource:
    """Reads packed blocks."""

    def __init__(self, blocks: list[bytes], cancelled: Cancel = never) -> None:
        self._blocks = blocks
        self._cancelled = cancelled

    def close(self) -> None:
        """Nothing is open."""

    def read(self, block: Block) -> memoryview:
        target = memoryview(bytearray(block.raw))
        self._fill(block, target)
        return target

    def buffer(self, chunk: Chunk) -> Any:
        memory = fresh(chunk.raw)
        view = memoryview(memory).cast("B")
        for block in chunk.blocks:
            self._fill(block, view[: block.raw])
            view = view[block.raw :]
        return memory

    def _fill(self, block: Block, target: memoryview) -> None:
        if self._cancelled():
            raise Cancelled("cancelled while it was being restored; it stays stored")
        data = memoryview(self._blocks[block.offset])
        check(data, block.digests)
        if block.packed:
            unpack_into(data, target)
        else:
            target[:] = data
