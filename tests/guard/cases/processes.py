"""Threads, pools, children: memory taken beside the cell."""

from __future__ import annotations

from tests.guard.case import Case

_GROW = "x=[]\nwhile True: x.append(bytearray(b'1')*2**20)"
_CHILD_ENDED = frozenset(
    {"CalledProcessError", "BrokenProcessPool", "TerminatedWorkerError", "OSError", "BlockingIOError"}
)
_WORK = """
def work(share):
    block = bytearray(b"\\1") * int(share * LIMIT)
    return len(block)
def keep(share):
    return bytes(work(share))
"""

CASES = (
    Case(
        "a thread that grows",
        """
import threading, room
t = threading.Thread(target=room.grow)
t.start()
t.join()
""",
    ),
    Case(
        "a thread left behind by its cell",
        """
import threading, room
kept = []
t = threading.Thread(target=lambda: kept.append(room.grow()), daemon=True)
t.start()
""",
        idle=5.0,
    ),
    Case(
        "a slow thread left behind by its cell",
        """
import threading, time
rows = []
def leak():
    for _ in range(60):
        rows.append(bytearray(b"\\1") * (LIMIT // 40))
        time.sleep(0.05)
threading.Thread(target=leak, daemon=True).start()
""",
        idle=5.0,
    ),
    Case(
        "a pool of threads",
        """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as pool:
    kept = list(pool.map(lambda i: bytearray(b'\\1') * (LIMIT // 5), range(8)))
""",
    ),
    Case(
        "many threads with a little each",
        """
import threading
kept = []
ts = [threading.Thread(target=lambda: kept.append(bytearray(b'\\1') * (LIMIT // 50))) for _ in range(80)]
[t.start() for t in ts]
[t.join() for t in ts]
""",
        errors=frozenset({"RuntimeError"}),
    ),
    Case(
        "numpy in threads",
        """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(4) as pool:
    kept = list(pool.map(lambda i: numpy.random.rand(LIMIT // 3 // 8), range(4)))
""",
        needs=("numpy",),
    ),
    Case(
        "a fork that grows",
        """
import os, room
pid = os.fork()
if not pid:
    try:
        room.grow()
    finally:
        os._exit(0)
print(os.waitpid(pid, 0))
""",
    ),
    Case(
        "a fork that rewrites what it inherits",
        """
import os
big = bytearray(b'\\1') * int(0.55 * LIMIT)
pid = os.fork()
if not pid:
    try:
        big[:] = big.replace(b'\\1', b'\\2')
    finally:
        os._exit(0)
print(os.waitpid(pid, 0))
""",
    ),
    Case(
        "a subprocess that grows",
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {_GROW!r}], check=True)",
        errors=_CHILD_ENDED,
    ),
    Case(
        "eight small subprocesses",
        """
import subprocess, sys
code = f"import time; x = bytearray(b'1') * {LIMIT // 5}; time.sleep(3)"
ps = [subprocess.Popen([sys.executable, '-c', code]) for _ in range(8)]
print([p.wait() for p in ps])
""",
        errors=_CHILD_ENDED,
    ),
    Case(
        "thirty tiny subprocesses",
        """
import subprocess, sys
code = f"import time; x = bytearray(b'1') * {LIMIT // 24}; time.sleep(3)"
ps = [subprocess.Popen([sys.executable, '-c', code]) for _ in range(30)]
print([p.wait() for p in ps])
""",
        errors=_CHILD_ENDED,
    ),
    Case(
        "a shell command",
        "import sys\n!{sys.executable} -c \"x = bytearray(1) * (3 * {LIMIT} // 2); x[:] = b'1' * len(x)\"",
    ),
    Case(
        "a subprocess while the cell grows too",
        f"""
import subprocess, sys, room
p = subprocess.Popen([sys.executable, '-c', {_GROW!r}])
rows = room.grow()
""",
        errors=_CHILD_ENDED,
    ),
    Case(
        "a subprocess left behind",
        """
import subprocess, sys
code = f"import time\\nx = []\\nfor _ in range(60):\\n    x.append(bytearray(b'1') * {LIMIT // 40}); time.sleep(0.05)"
p = subprocess.Popen([sys.executable, '-c', code])
""",
        idle=5.0,
        after=("p.kill()",),
    ),
    Case(
        "multiprocessing.Pool that loses a worker",
        _WORK
        + """
import multiprocessing
with multiprocessing.Pool(2) as pool:
    print(pool.map(work, [0.1, 1.5, 0.1]))
""",
        errors=_CHILD_ENDED,
    ),
    Case(
        "multiprocessing.Pool that returns too much",
        _WORK
        + """
import multiprocessing
with multiprocessing.Pool(2) as pool:
    kept = pool.map(keep, [0.2] * 8)
""",
        errors=_CHILD_ENDED,
    ),
    Case(
        "a pool of processes",
        _WORK
        + """
from concurrent.futures import ProcessPoolExecutor
with ProcessPoolExecutor(2) as pool:
    print(list(pool.map(work, [0.6, 0.6, 0.6])))
""",
        errors=_CHILD_ENDED,
    ),
    Case(
        "joblib",
        """
import joblib
kept = joblib.Parallel(n_jobs=2)(joblib.delayed(numpy.ones)(LIMIT // 4 // 8) for _ in range(8))
""",
        needs=("numpy",),
        errors=_CHILD_ENDED,
    ),
    Case(
        "joblib, workers that are too large",
        """
import joblib
print(joblib.Parallel(n_jobs=2)(joblib.delayed(lambda n: len(bytes(b'x') * n))(LIMIT) for _ in range(4)))
""",
        errors=_CHILD_ENDED,
    ),
    Case(
        "a manager's list",
        """
import multiprocessing
manager = multiprocessing.Manager()
rows = manager.list()
while True:
    rows.append(bytes(MIB) + b'x')
""",
        errors=_CHILD_ENDED | {"EOFError", "ConnectionResetError", "BrokenPipeError", "RemoteError"},
    ),
    Case(
        "a queue that nobody reads",
        """
import multiprocessing
queue = multiprocessing.Queue()
while True:
    queue.put(bytes(MIB) + b'x')
""",
    ),
    Case(
        "a DataLoader's workers",
        """
import torch.utils.data as d
class Rows(d.Dataset):
    def __len__(self):
        return 40
    def __getitem__(self, i):
        return torch.ones(LIMIT // 10 // 4)
kept = list(d.DataLoader(Rows(), num_workers=2, batch_size=2))
""",
        needs=("torch",),
        errors=_CHILD_ENDED | {"RuntimeError"},
    ),
)
