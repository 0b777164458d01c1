"""Memory that is mapped and not taken yet: it will be, without any allocation that could fail."""

from __future__ import annotations

import re

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

from collections.abc import Callable, Iterator
from dataclasses import replace

from memkit.memory.files import read
from memkit.memory.guard.gauge import Reading

_LARGE = 1024 * 1024  # Pillow asks for a picture in blocks of 16 MiB, and only then fills the first
_STACK, _PAGES = 8 * 1024 * 1024, 64 * 1024  # pthread_attr_init(3), where no limit says otherwise
# Walking the page tables takes 11-19 ms with torch loaded; where little is left, knowing is worth more.
_RESCAN = 64 * 1024 * 1024
# proc_pid_smaps(5): a header "from-to rw-p offset device inode  name", then "Key:  number kB" lines.
_REGION = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) rw-p [0-9a-f]+ [0-9a-f:]+ 0 *([^\n]*)$", re.MULTILINE)
_TAKEN = re.compile(rb"^(?:Anonymous|Swap): +(\d+) kB$", re.MULTILINE)


class Untouched:
    """Estimates the untouched bytes of private mappings, walking them only after `Reading.gap` has grown by much.

    What has been touched since the last walk is seen from the gap; what was mapped since may be about to be filled.
    `reserves()` are bytes of it that libraries keep for themselves and hardly ever fill, such as a BLAS's buffers.
    """

    def __init__(self, pid: int | None = None, proc: str = "/proc", reserves: Callable[[], int] = lambda: 0) -> None:
        self._path = f"{proc}/{'self' if pid is None else pid}/smaps"
        self._reserves = reserves
        self._gap: int | None = None
        self._last: Reading | None = None
        self._found = self._given_back = 0

    def follow(self, reading: Reading, read: Callable[[], Reading]) -> Reading:
        """The reading with what it does not say, or a new one if that took time.

        A walk is as long as its process makes it. What is taken meanwhile must not be counted as free and as taken, so
        memory is read again after it; counted twice, as taken and as promised, it does no harm.
        """
        self._note_what_was_given_back(reading)
        if self._gap is None or reading.gap - self._gap > min(_RESCAN, max(_LARGE, reading.free // 8)):
            found = self.walk()
            reading = read()
            self._gap, self._found = reading.gap, found
        elif reading.gap < self._gap:
            self._found = max(0, self._found - (self._gap - reading.gap))
            self._gap = reading.gap
        self._last = reading
        self._given_back = min(self._given_back, self._found)
        known = max(0, self._found - self._given_back - self._reserves())
        return replace(reading, promised=known, perhaps=max(0, reading.gap - self._gap))

    def _note_what_was_given_back(self, reading: Reading) -> None:
        """A gap that grows although nothing was mapped is heap that was freed and given back in place: no promise."""
        if self._last is None or self._gap is None:
            return
        mapped = max(0, reading.data - self._last.data)
        back = max(0, reading.gap - self._last.gap - mapped)
        self._gap += back
        self._found += back
        self._given_back += back

    def walk(self) -> int:
        """Bytes now, reserves included; takes some milliseconds."""
        try:
            return sum(_untouched(read(self._path)))
        except OSError:  # hidden: then only the watcher stands between lazily touched memory and the end
            return 0


def _untouched(smaps: bytes) -> Iterator[int]:
    stack = stack_size()
    for header in _REGION.finditer(smaps):
        size = int(header[2], 16) - int(header[1], 16)
        if size >= _LARGE and abs(size - stack) > _PAGES and header[3] != b"[stack]":  # stacks are hardly ever filled
            lines = smaps[header.end() : smaps.find(b"VmFlags:", header.end())]
            yield max(0, size - sum(int(number) for number in _TAKEN.findall(lines)) * 1024)


def stack_size() -> int:
    """Bytes of a new thread's stack; the watcher has the kernel's own limit by inheritance."""
    soft = resource.getrlimit(resource.RLIMIT_STACK)[0] if resource is not None else -1
    return soft if 0 < soft < 1 << 40 else _STACK
