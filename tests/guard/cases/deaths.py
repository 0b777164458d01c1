"""Deaths that nothing can stop: the variables must be in the next kernel."""

from __future__ import annotations

from tests.guard.case import OOM, SAVED, Case, Death

_READY = "open('ready', 'w').close()\n"
# The shared mapping is made by C, where no check of sizes can see it, and written with the GIL held.
_FLOOD = """
import ctypes
c = ctypes.PyDLL(None)
c.mmap.restype = ctypes.c_void_p
c.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
c.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
n = int(1.5 * LIMIT)
c.memset(c.mmap(None, n, 3, 0x21, -1, 0), 1, n)
"""
# Otherwise the OOM killer takes the larger process, which is the other.
_FIRST = "with open('/proc/self/oom_score_adj', 'w') as file:\n    file.write('1000')\n"


def _death(name: str, code: str, **more: object) -> Case:
    return Case(name, code, may=SAVED, **more)  # type: ignore[arg-type]


CASES = (
    _death("SIGKILL while idle", "x = 1", death=Death("SIGKILL", running=False)),
    _death("SIGKILL in a Python loop", _READY + "while True:\n    pass", death=Death("SIGKILL")),
    _death(
        "SIGKILL in a C loop",
        "big = numpy.random.rand(LIMIT // 5 // 8)\n"
        + _READY
        + "while True:\n    big[::-1].sort()\n    big.sort(kind='heapsort')",
        death=Death("SIGKILL"),
        needs=("numpy",),
    ),
    _death(
        "SIGKILL with threads at work",
        """
import threading
ts = [threading.Thread(target=lambda: [sum(range(10**6)) for _ in range(10**6)], daemon=True) for _ in range(4)]
[t.start() for t in ts]
"""
        + _READY
        + "ts[0].join()",
        death=Death("SIGKILL"),
    ),
    _death(
        "SIGKILL with pandas and torch at work",
        _READY
        + """
while True:
    a = torch.ones(500, 500) @ torch.ones(500, 500)
    keep_frame.groupby('b').sum(numeric_only=True)
""",
        death=Death("SIGKILL"),
        needs=("pandas", "torch"),
    ),
    _death("SIGTERM", _READY + "while True:\n    pass", death=Death("SIGTERM")),
    _death("SIGABRT from outside", _READY + "import time\ntime.sleep(60)", death=Death("SIGABRT")),
    _death("a null pointer", "import ctypes\nctypes.string_at(0)"),
    _death(
        "a null pointer in a thread",
        """
import ctypes, threading
t = threading.Thread(target=ctypes.string_at, args=(0,))
t.start()
t.join()
""",
    ),
    _death("abort()", "import os\nos.abort()"),
    _death("os._exit", "import os\nos._exit(3)"),
    _death("exit() of the C library", "import ctypes\nctypes.CDLL(None).exit(1)"),
    _death(
        "SIGBUS",
        """
import mmap
m = mmap.mmap(holes('a', 100_000), 100_000)
open('a', 'w').close()
m[50_000]
""",
    ),
    _death(
        "the stack of C runs over",
        """
import sys
sys.setrecursionlimit(10**9)
def f(_):
    return max([1], key=f)
f(0)
""",
    ),
    _death("OOM kill inside one C call", _FLOOD),
    _death(
        "OOM kill because of a process elsewhere in the group",
        _FIRST + _READY + "import time\ntime.sleep(60)",
        death=Death(OOM),
    ),
    _death("OOM kill because of a process elsewhere, while idle", _FIRST, death=Death(OOM, running=False)),
)
