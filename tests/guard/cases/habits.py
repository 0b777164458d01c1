"""Cells that hold on: swallowed exceptions, memory taken in finally, in __del__, in a signal handler, in a hook."""

from __future__ import annotations

from tests.guard.case import UNNAMED, Case

_ONE = "rows.append(bytearray(b'\\1') * MIB)"

CASES = (
    Case(
        "except Exception, and on",
        f"""
rows = []
while True:
    try:
        {_ONE}
    except Exception:
        pass
""",
    ),
    Case(
        "except Exception around everything",
        f"""
rows, n = [], 0
while n < 30:
    try:
        while True:
            {_ONE}
    except Exception:
        n += 1
""",
    ),
    Case(
        "except MemoryError, and on",
        f"""
rows = []
while len(rows) < 3 * LIMIT // MIB:
    try:
        {_ONE}
    except MemoryError:
        rows.append(None)
""",
    ),
    Case(
        "except BaseException once",
        f"""
rows = []
try:
    while True:
        {_ONE}
except BaseException:
    pass
while True:
    {_ONE}
""",
    ),
    Case(
        "except BaseException, large calls",
        """
n = 0
while n < 20:
    try:
        big = numpy.ones(int(1.5 * LIMIT) // 8)
    except BaseException:
        n += 1
""",
        needs=("numpy",),
    ),
    Case(
        "suppress",
        f"""
import contextlib
rows = []
while True:
    with contextlib.suppress(MemoryError):
        {_ONE}
""",
    ),
    Case(
        "a retry that takes more each time",
        """
kept, size = [], LIMIT // 2
for _ in range(12):
    try:
        kept.append(bytearray(b'\\1') * size)
    except MemoryError:
        size = size * 2 // 3
""",
    ),
    Case(
        "allocate in finally",
        f"""
rows = []
try:
    while True:
        {_ONE}
finally:
    for _ in range(LIMIT // MIB):
        {_ONE}
""",
    ),
    Case(
        "allocate in __exit__",
        """
import room
class Grows:
    def __enter__(self):
        return self
    def __exit__(self, *error):
        self.rows = room.grow()
with Grows():
    rows = room.grow()
""",
    ),
    Case(
        "allocate in __del__",
        """
import room
class Grows:
    def __del__(self):
        room.grow()
it = Grows()
del it
rows = room.grow()
""",
    ),
    Case(
        "allocate in a weakref callback",
        """
import room, weakref
class Thing: pass
it = Thing()
keep = weakref.ref(it, lambda _: room.grow())
del it
big = bytearray(b'\\1') * int(1.5 * LIMIT)
""",
    ),
    Case(
        "allocate in a signal handler",
        """
import room, signal, time
signal.signal(signal.SIGALRM, lambda *_: room.grow())
signal.setitimer(signal.ITIMER_REAL, 0.2)
while True:
    time.sleep(0.1)
""",
    ),
    Case(
        "allocate in a signal handler while idle",
        """
import room, signal
signal.signal(signal.SIGALRM, lambda *_: room.grow(stop=lambda: used() > 2 * LIMIT))
signal.setitimer(signal.ITIMER_REAL, 0.5)
""",
        idle=4.0,
        after=("signal.signal(signal.SIGALRM, signal.SIG_IGN)",),
    ),
    Case(
        "allocate in a hook of the garbage collector",
        """
import gc
rows = []
def grow(phase, info):
    rows.append(bytearray(b'\\1') * 4 * MIB)
gc.callbacks.append(grow)
try:
    kept = [[i] for i in range(10**7)]
finally:
    gc.callbacks.remove(grow)
""",
    ),
    Case(
        "allocate in a trace function",
        """
import sys
rows = []
def trace(frame, event, arg):
    rows.append(bytearray(b'\\1') * 100_000)
    return trace
sys.settrace(trace)
try:
    while True:
        sum([1, 2]); len(rows)
finally:
    sys.settrace(None)
""",
    ),
    Case(
        "allocate in a sort key",
        """
rows = []
def key(i):
    rows.append(bytearray(b'\\1') * 100_000)
    return -i
sorted(range(10**7), key=key)
""",
    ),
    Case(
        "allocate in __repr__",
        """
import room
class Grows:
    def __repr__(self):
        return str(len(room.grow()))
Grows()
""",
        errors=UNNAMED,
    ),
    Case(
        "allocate in the text of an exception",
        "class Bad(Exception):\n    def __str__(self):\n        return 'x' * int(1.5 * LIMIT)\nraise Bad",
        errors=frozenset({"Bad"}),
    ),
    Case(
        "a generator closed while it holds much",
        """
import room
def made():
    try:
        yield room.grow(stop=lambda: left() < LIMIT // 3)
    finally:
        room.grow()
g = made()
next(g)
g.close()
""",
    ),
    Case(
        "garbage that waits for the collector",
        """
import gc
gc.disable()
class Node:
    pass
try:
    while True:
        n = Node()
        n.me, n.block = n, bytearray(b'\\1') * 100_000
finally:
    gc.enable()
""",
    ),
)
