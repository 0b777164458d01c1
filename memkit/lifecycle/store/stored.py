"""What is known about a stored value: plain data, kept in memory, never written to disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from memkit.errors import DemotionError

StoredTier = Literal["disk", "compressed"]
Compress = Literal["auto", "always", "never"]


class Cancelled(DemotionError):  # noqa: N818 - it is no failure
    """The caller's `cancelled()` answered True; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Block:
    """A run of bytes: `stored` of them at `offset`, `raw` once unpacked; `digests` has one for each piece stored."""

    offset: int
    stored: int
    raw: int
    packed: bool
    digests: bytes


@dataclass(frozen=True, slots=True)
class Chunk:
    """One buffer, as the blocks that follow one another in it."""

    blocks: tuple[Block, ...]
    raw: int

    @property
    def mappable(self) -> bool:
        """Whether the buffer lies in its file as it was in memory."""
        return len(self.blocks) == 1 and not self.blocks[0].packed


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything of one stored value is.

    `stream` is the pickle; `chunks` the buffers it refers to by index; `foreign` the indices of those that
    libraries handed to pickle themselves, in that order.
    """

    stream: tuple[Block, ...]
    chunks: tuple[Chunk, ...]
    foreign: tuple[int, ...]

    @property
    def end(self) -> int:
        """Where the last byte of it ends in a file."""
        blocks = (*self.stream, *(block for chunk in self.chunks for block in chunk.blocks))
        return max((block.offset + block.stored for block in blocks), default=0)

    def moved(self, offsets: Sequence[int]) -> Layout:
        """The layout where the block that was at offset `i` is at `offsets[i]`."""
        stream = tuple(replace(block, offset=offsets[block.offset]) for block in self.stream)
        chunks = tuple(
            replace(chunk, blocks=tuple(replace(block, offset=offsets[block.offset]) for block in chunk.blocks))
            for chunk in self.chunks
        )
        return replace(self, stream=stream, chunks=chunks)


@dataclass(frozen=True, eq=False)  # without slots, so that it has weak references
class Stored:
    """A value, or a group of values that share memory, at rest. Its bytes go with the last reference to it.

    Sizes are bytes: `raw_bytes` of the buffers and the pickle uncompressed, `stored_bytes` as they rest, `freed_bytes`
    an estimate of what letting go of the values frees. `kept` are the objects that somebody else holds too, and the
    notebook's functions and classes: they stay in memory and are the same objects after a restoration. `mapped`:
    nearly all of it comes back as a private file mapping, which takes memory only page by page as it is changed.
    """

    key: int
    names: tuple[str, ...]
    tier: StoredTier
    raw_bytes: int
    stored_bytes: int
    freed_bytes: int
    mapped: bool
    kept: tuple[Any, ...] = field(repr=False)
    layout: Layout = field(repr=False)
    path: Path | None = None
    head: bytes = field(default=b"", repr=False)
    owner: int = field(default_factory=os.getpid, repr=False)
