"""What the kernel is doing, in a page of memory that its rescue child can read after it has died.

A shared page costs two microseconds a cell; a message would wake the child at every cell and have it touch its memory.
"""

from __future__ import annotations

import json
import mmap
from dataclasses import asdict, dataclass

_SIZE = 4096
_LINE = 120


@dataclass(frozen=True, slots=True)
class Doing:
    """The running (or last) cell and the last reading: times in seconds since the epoch, sizes in bytes."""

    cell: int | None = None
    line: str = ""
    started: float = 0.0
    running: bool = False
    rss: int | None = None
    peak: int | None = None
    limit: int | None = None
    available: int | None = None


class Journal:
    """One writer, the kernel; holds the first line of a cell at most, bounded, and no values."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, _SIZE)
        self.doing = Doing()

    def write(self, doing: Doing) -> None:
        """Replace what is said. The length is written last: a death in between leaves what was said before, or this."""
        self.doing = doing
        data = json.dumps(asdict(doing)).encode()
        if len(data) <= _SIZE - 8:
            self._page[:4] = b"\0\0\0\0"
            self._page[8 : 8 + len(data)] = data
            self._page[:4] = len(data).to_bytes(4, "little")

    def read(self) -> Doing:
        """What was said last; nothing where the writer died in the middle of saying it."""
        length = int.from_bytes(self._page[:4], "little")
        return Doing(**json.loads(self._page[8 : 8 + length])) if length else self.doing

    def close(self) -> None:
        self._page.close()


def first_line(source: str) -> str:
    """The first line of a cell that says something, at most 120 characters."""
    lines = (line.strip() for line in source[:10_000].splitlines())
    return next((line for line in lines if line and not line.startswith("#")), "")[:_LINE]
