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
_ARENA = 64 * 1024 * 1024  # HEAP_MAX_SIZE in glibc's arena.c
_STACK, _PAGES = 8 * 1024 * 1024, 64 * 1024  # pthread_attr_init(3), where no limit says otherwise
# Walking the page tables takes 11-19 ms with torch loaded; where little is left, knowing is worth more.
_RESCAN = 64 * 1024 * 1024
# proc_pid_smaps(5): a header "from-to rw-p offset device inode  name", then "Key:  number kB" lines.
_REGION = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) rw.p [0-9a-f]+ [0-9a-f:]+ (\d+) *([^\n]*)$", re.MULTILINE)
_TAKEN = re.compile(rb"^(?:Anonymous|Swap): +(\d+) kB$", re.MULTILINE)


class Untouched:
    """Tells of a process' data segments that take no memory yet (`Reading.gap`) what of them will be filled.

    All of it, but for what is known to be harmless: stacks, free heap, allocators' arenas, private mappings of files.
    How much that is, is looked up by walking the mappings, only after the gap has grown by much. `reserves()` are bytes
    that libraries keep for themselves and hardly ever fill, such as a BLAS's buffers.
    """

    def __init__(self, pid: int | None = None, proc: str = "/proc", reserves: Callable[[], int] = lambda: 0) -> None:
        self._path = f"{proc}/{'self' if pid is None else pid}/smaps"
        self._reserves = reserves
        self._gap: int | None = None
        self._harmless = 0

    def follow(self, reading: Reading, read: Callable[[], Reading]) -> Reading:
        """The reading with what is promised; a new one after a walk, in whose time memory may have been taken."""
        if self._gap is None or reading.gap - self._gap > min(_RESCAN, max(_LARGE, reading.free // 8)):
            self._harmless = self.walk()[1]
            reading = read()
            self._gap = reading.gap
        self._gap = min(self._gap, reading.gap)
        self._harmless = min(self._harmless, max(0, reading.gap))
        return replace(reading, promised=max(0, reading.gap - self._harmless - self._reserves()))

    def walk(self) -> tuple[int, int]:
        """Untouched bytes that will be filled, reserves included, and harmless ones; takes some milliseconds."""
        found = [0, 0]
        try:
            for harmless, size in _untouched(read(self._path)):
                found[harmless] += size
        except OSError:  # hidden: then all of the gap counts, and a sparse array is refused sooner
            return 0, 0
        return found[0], found[1]


def _untouched(smaps: bytes) -> Iterator[tuple[bool, int]]:
    """For each private writable mapping whether its untouched bytes are harmless, and how many they are."""
    stack = stack_size()
    for header in _REGION.finditer(smaps):
        size = int(header[2], 16) - int(header[1], 16)
        flags = smaps.find(b"VmFlags:", header.end())
        taken = sum(int(number) for number in _TAKEN.findall(smaps[header.end() : flags])) * 1024
        # Mapped without accounting, as allocators do for their arenas. One of glibc's is no larger, and it grows.
        arena = size > _ARENA and b" nr" in smaps[flags : smaps.find(b"\n", flags)]
        harmless = size < _LARGE or abs(size - stack) <= _PAGES or header[3] != b"0" or header[4] == b"[heap]"
        yield arena or harmless, max(0, size - taken)


def stack_size() -> int:
    """Bytes of a new thread's stack; the watcher has the kernel's own limit by inheritance."""
    soft = resource.getrlimit(resource.RLIMIT_STACK)[0] if resource is not None else -1
    return soft if 0 < soft < 1 << 40 else _STACK
