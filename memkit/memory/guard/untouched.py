"""Memory that is mapped and not taken yet: it will be, without any allocation that could fail."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from memkit.memory.files import read

_LARGE = 32 * 1024 * 1024  # thread stacks and allocators' reserves are smaller, and rarely filled
_RESCAN = 64 * 1024 * 1024  # walking the page tables takes 11-19 ms with torch loaded
# proc_pid_smaps(5): a header "from-to rw-p offset device inode  name", then "Key:  number kB" lines.
_REGION = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) rw-p [0-9a-f]+ [0-9a-f:]+ 0 *([^\n]*)$", re.MULTILINE)
_TAKEN = re.compile(rb"^(?:Anonymous|Swap): +(\d+) kB$", re.MULTILINE)


class Untouched:
    """Estimates the untouched bytes of large private mappings, walking them only after `gap` has grown by much.

    `reserves()` are bytes of it that libraries keep for themselves and hardly ever fill, such as a BLAS's buffers.
    """

    def __init__(self, pid: int | None = None, proc: str = "/proc", reserves: Callable[[], int] = lambda: 0) -> None:
        self._path = f"{proc}/{'self' if pid is None else pid}/smaps"
        self._reserves = reserves
        self._gap: int | None = None
        self._found = 0

    def estimate(self, gap: int) -> int:
        """Bytes; `gap` is `Reading.gap` now. What has been touched since the last walk is seen from it."""
        if self._gap is None or gap - self._gap > _RESCAN:
            self._gap, self._found = gap, self.walk()
        elif gap < self._gap:
            self._found = max(0, self._found - (self._gap - gap))
            self._gap = gap
        return max(0, self._found - self._reserves())

    def at_most(self, gap: int) -> int:
        """The same, with what was mapped since the last walk counted in full: an allocation on its way to be filled."""
        known = self.estimate(gap)
        return known + max(0, gap - (self._gap or 0))

    def walk(self) -> int:
        """Bytes now, reserves included; takes some milliseconds."""
        try:
            return sum(_untouched(read(self._path)))
        except OSError:  # hidden: then only the watcher stands between lazily touched memory and the end
            return 0


def _untouched(smaps: bytes) -> Iterator[int]:
    for header in _REGION.finditer(smaps):
        size = int(header[2], 16) - int(header[1], 16)
        if size < _LARGE or header[3] in (b"[heap]", b"[stack]"):
            continue
        flags = smaps.find(b"VmFlags:", header.end())
        # Reserved without accounting, as allocators do for their arenas: what was freed there is free heap, not memory
        # that somebody is about to fill.
        if b" nr" not in smaps[flags : smaps.find(b"\n", flags)]:
            lines = smaps[header.end() : flags]
            yield max(0, size - sum(int(number) for number in _TAKEN.findall(lines)) * 1024)
