"""Memory that is mapped: anonymous, of files, in /dev/shm, by C itself."""

from __future__ import annotations

from tests.guard.case import Case

_FILL = "for i in range(0, n, 16 * MIB):\n    m[i:i + 16 * MIB] = b'\\1' * len(m[i:i + 16 * MIB])"
_N = "import mmap\nn = int(1.5 * LIMIT)\n"
_CHUNKS = "for i in range(0, len(m), 4 * MIB):\n    m[i:i + 4 * MIB] = 1"
_LIBC = """
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.memset.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
"""

CASES = (
    Case(
        "anonymous private mapping",
        _N
        + """
m = mmap.mmap(-1, n, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
"""
        + _FILL,
    ),
    Case("anonymous shared mapping", _N + "m = mmap.mmap(-1, n)\n" + _FILL, errors=frozenset({"OSError"})),
    Case(
        "small shared mappings that grow",
        """
import mmap
kept = []
while True:
    m = mmap.mmap(-1, 8 * MIB)
    m.write(b'\\1' * 8 * MIB)
    kept.append(m)
""",
        errors=frozenset({"OSError"}),
    ),
    Case(
        "a file's private copy, in pieces",
        _N + "m = mmap.mmap(holes('a', n), n, access=mmap.ACCESS_COPY)\n" + _FILL,
        errors=frozenset({"OSError"}),
    ),
    Case(
        "memmap mode c, in pieces",
        "m = numpy.memmap(sparse('a', int(1.5 * LIMIT)), 'u1', 'c')\n" + _CHUNKS,
        needs=("numpy",),
    ),
    Case(
        "memmap mode c, in one C call",
        "m = numpy.memmap(sparse('a', int(1.5 * LIMIT)), 'u1', 'c')\nm[:] = 1",
        needs=("numpy",),
    ),
    Case(
        "memmap mode c, over two cells",
        _CHUNKS,
        setup=("m = numpy.memmap(sparse('a', int(1.5 * LIMIT)), 'u1', 'c')",),
        needs=("numpy",),
    ),
    Case(
        "memmap of a file in /dev/shm",
        "m = numpy.memmap(shm(), 'u1', 'w+', shape=int(1.5 * LIMIT))\n" + _CHUNKS,
        needs=("numpy",),
    ),
    Case(
        "a file in /dev/shm",
        "with open(shm(), 'wb') as file:\n    while True:\n        file.write(b'\\1' * MIB)",
        after=("import os\nos.remove(shm())\nb = bytearray(b'\\1') * (LIMIT // 4)",),
    ),
    Case("a memfd", "import os\nfd = os.memfd_create('x')\nwhile True:\n    os.write(fd, b'\\1' * MIB)"),
    Case(
        "multiprocessing.shared_memory",
        """
import os
from multiprocessing import shared_memory
m = shared_memory.SharedMemory(TAG + "-s", create=True, size=int(1.5 * LIMIT))
for i in range(0, m.size, MIB):
    m.buf[i:i + MIB] = b"\\1" * MIB
""",
        errors=frozenset({"OSError"}),
    ),
    Case(
        "several pieces of shared memory",
        """
from multiprocessing import shared_memory
kept = []
for i in range(40):
    kept.append(shared_memory.SharedMemory(f"{TAG}-s{i}", create=True, size=LIMIT // 20))
    kept[-1].buf[:] = b"\\1" * kept[-1].size
""",
        errors=frozenset({"OSError"}),
    ),
    Case(
        "malloc and memset in one C call",
        _LIBC
        + """
n = int(1.5 * LIMIT)
p = libc.malloc(n)
if not p:
    raise MemoryError
libc.memset(p, 1, n)
""",
    ),
    Case(
        "malloc and memset in pieces",
        _LIBC
        + """
while True:
    p = libc.malloc(MIB)
    if not p:
        raise MemoryError
    libc.memset(p, 1, MIB)
""",
    ),
    Case(
        "ctypes arrays",
        """
import ctypes
kept = []
while True:
    kept.append((ctypes.c_double * 100_000)(*[1.0] * 100))
    ctypes.memset(kept[-1], 1, 800_000)
""",
    ),
    Case(
        "a mapping that is made larger",
        """
import mmap
m = mmap.mmap(-1, MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for size in range(8 * MIB, 2 * LIMIT, 8 * MIB):
    m.resize(size)
    m[size - 8 * MIB:size] = b'\\1' * 8 * MIB
""",
        errors=frozenset({"OSError", "ValueError"}),
    ),
    Case(
        "a mapped file, written, then copied",
        """
import mmap
n = LIMIT
m = mmap.mmap(holes('a', n), n)
kept = [m[i:i + 4 * MIB] * 2 for i in range(0, n, 4 * MIB)]
""",
    ),
)
