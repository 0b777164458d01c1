"""Cells that must pass untouched: much memory, but less than there is. `fits()` leaves 15 %, at least 132 MiB."""

from __future__ import annotations

from memkit.units import GIB, MIB
from tests.guard.case import UNTOUCHED, Case

_MAPPED = "import mmap\nn = int(1.3 * LIMIT)\n"
_SMALL = (512 * MIB, GIB, 3 * GIB // 2)


def _fine(name: str, code: str, **more: object) -> Case:
    return Case(name, code, may=UNTOUCHED, **more)  # type: ignore[arg-type]


CASES = (
    _fine("all that fits, at once", "big = bytearray(b'\\1') * fits()\ndel big"),
    _fine(
        "all that fits, in pieces",
        """
rows = [bytearray(b'\\1') * MIB for _ in range(fits() // MIB)]
del rows
""",
    ),
    _fine(
        "allocate, free, allocate again in one cell",
        "n = fits()\nfor i in range(5):\n    big = bytearray(b'\\1') * n\n    del big",
    ),
    _fine(
        "allocate, free, allocate again with arrays",
        "n = fits() // 8\nfor i in range(5):\n    big = numpy.full(n, i)\n    del big",
        needs=("numpy",),
    ),
    _fine(
        "free, then allocate as much",
        "del big\nmore = numpy.ones(n // 8)",
        setup=("n = fits()\nbig = numpy.ones(n // 8)",),
        needs=("numpy",),
    ),
    _fine(
        "many small objects, freed, then one large",
        """
rows = [bytes(600) + b'x' for _ in range(fits() // 2 // 700)]
del rows
big = bytearray(b'\\1') * (fits() * 9 // 10)
""",
    ),
    _fine(
        "a list that grows and shrinks",
        """
for _ in range(3):
    rows = []
    while left() > max(LIMIT // 5, 160 * MIB):
        rows.append([0] * 10_000)
    rows.clear()
""",
    ),
    _fine(
        "in place on most of the memory",
        "big += 1\nbig *= 2",
        setup=("big = numpy.ones(fits() // 8)",),
        needs=("numpy",),
    ),
    _fine("zeros, all of them touched", "big = numpy.zeros(fits() // 8)\nbig += 1", needs=("numpy",)),
    _fine(
        "zeros much larger than memory, few touched",
        "big = numpy.zeros(2 * LIMIT // 8)\nbig[::10**6] = 1\nassert big.nbytes > LIMIT",
        needs=("numpy",),
        known_failure="an array that is mapped but hardly touched counts in full",
    ),
    _fine(
        "an absurd request, caught",
        "try:\n    numpy.ones(10**15)\nexcept MemoryError:\n    big = numpy.ones(fits() // 8)",
        needs=("numpy",),
    ),
    _fine("half of it thirty times", "big = numpy.ones(fits() // 2 // 8)\ndel big", times=30, needs=("numpy",)),
    _fine(
        "a shared mapping of a file larger than the limit, read",
        _MAPPED
        + """
m = mmap.mmap(holes('a', n), n)
total = sum(m[i] for i in range(0, n, 65536))
""",
    ),
    _fine(
        "a shared mapping of a file, written",
        _MAPPED
        + """
m = mmap.mmap(holes('a', n), n)
for i in range(0, n // 2, MIB):
    m[i:i + MIB] = b'\\1' * MIB
""",
        limits=_SMALL,
    ),
    _fine(
        "a private mapping of a file larger than the limit, read",
        _MAPPED
        + """
m = mmap.mmap(holes('a', n), n, access=mmap.ACCESS_COPY)
total = sum(m[i] for i in range(0, n, 65536))
""",
    ),
    _fine(
        "memmap mode c of a file larger than the limit, read",
        """
m = numpy.memmap(sparse('a', int(1.3 * LIMIT)), 'u1', 'c')
total = int(m[::4096].sum())
m[:1000] = 1
""",
        needs=("numpy",),
    ),
    _fine(
        "memmap mode r, summed in one call",
        "m = numpy.memmap(sparse('a', LIMIT // 80 * 104), 'f8', 'r')\nassert m.sum() == 0",
        needs=("numpy",),
    ),
    _fine(
        "a large file written and read",
        """
with open('a', 'wb') as file:
    for _ in range(int(1.2 * LIMIT) // MIB):
        file.write(b'\\1' * MIB)
with open('a', 'rb') as file:
    while file.read(MIB):
        pass
""",
        limits=_SMALL,
    ),
    _fine(
        "a file of the limit's size read in pieces",
        """
total = 0
with open(sparse('a', LIMIT * 2), 'rb') as file:
    while part := file.read(8 * MIB):
        total += len(part)
assert total == 2 * LIMIT
""",
    ),
    _fine(
        "forty threads",
        """
import threading
go = threading.Event()
ts = [threading.Thread(target=go.wait) for _ in range(40)]
[t.start() for t in ts]
go.set()
[t.join() for t in ts]
""",
    ),
    _fine(
        "forty threads with 200 MiB left",
        """
import threading
go = threading.Event()
ts = [threading.Thread(target=go.wait) for _ in range(40)]
[t.start() for t in ts]
go.set()
[t.join() for t in ts]
""",
        setup=("fill = bytearray(b'\\1') * max(0, left() - 200 * MIB)",),
        known_failure="the stack of a thread counts with its full 8 MiB",
    ),
    _fine(
        "a process that takes half",
        """
import subprocess, sys
code = f"x = bytearray(b'1') * {fits() // 2}"
assert subprocess.run([sys.executable, '-c', code]).returncode == 0
""",
    ),
    _fine(
        "a fork that reads what it inherits",
        """
import os
big = bytearray(b'\\1') * (fits() * 3 // 4)
pid = os.fork()
if not pid:
    os._exit(0 if sum(big[::4096]) else 1)
assert os.waitpid(pid, 0)[1] == 0
""",
    ),
    _fine(
        "multiprocessing.Pool",
        """
import multiprocessing
def work(i):
    return sum(bytearray(b'\\1') * 10_000_000) + i
with multiprocessing.Pool(2) as pool:
    assert pool.map(work, range(6))[5] == 10_000_005
""",
    ),
    _fine(
        "shared memory within bounds",
        """
from multiprocessing import shared_memory
m = shared_memory.SharedMemory(TAG + '-s', create=True, size=fits() // 2)
for i in range(0, m.size - MIB, MIB):
    m.buf[i:i + MIB] = b'\\1' * MIB
m.close()
m.unlink()
""",
    ),
    _fine(
        "an anonymous shared mapping within bounds",
        """
import mmap
m = mmap.mmap(-1, fits() // MIB * MIB)
for i in range(0, len(m), MIB):
    m[i:i + MIB] = b'\\1' * MIB
m.close()
""",
    ),
    _fine(
        "deep recursion that ends",
        """
import sys
sys.setrecursionlimit(50_000)
def f(n):
    return f(n - 1) + 1 if n else 0
assert f(40_000) == 40_000
""",
    ),
    _fine(
        "an error of the user's own",
        "try:\n    raise MemoryError('mine')\nexcept MemoryError as error:\n    assert str(error) == 'mine'",
    ),
    _fine(
        "the garbage of cycles",
        """
class Node:
    pass
for _ in range(2 * LIMIT // 20_000):
    node = Node()
    node.me, node.block = node, bytearray(20_000)
""",
    ),
)
