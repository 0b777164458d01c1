"""The rescue in real kernels: killed in every way, restarted as Jupyter does it, with everything a notebook runs."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(sys.platform != "linux", reason="the rescue works on Linux")]

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_LOAD = "%load_ext memkit"


class Kernel:
    """One kernel after the other on the same connection file, as an automatic restart makes them."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self._environment = dict(os.environ, MEMKIT_STORE_DIR=str(folder), IPYTHONDIR=str(folder), **environ)
        self._manager = KernelManager()
        self._start(self._manager.start_kernel)

    def _start(self, start: Callable[..., Any]) -> None:
        start(env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._client = self._manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=60)

    @property
    def pid(self) -> int:
        return int(self._manager.provisioner.process.pid)

    @property
    def ports(self) -> list[int]:
        return list(self._manager.ports)

    def __call__(self, source: str) -> str:
        """Run a cell; what it printed or raised, or where the kernel has died meanwhile what it had said until then."""
        asked, said = self._client.execute(source), []
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                message = self._client.get_iopub_msg(timeout=0.1)
            except queue.Empty:
                if not self._manager.is_alive():
                    break
                continue
            if message["parent_header"].get("msg_id") == asked:
                content = message["content"]
                if content.get("execution_state") == "idle":
                    break
                said += [content.get("text", ""), *content.get("data", {}).values(), *content.get("traceback", [])]
        return _COLOURS.sub("", "\n".join(map(str, said)))

    def idle(self) -> None:
        """Wait until the picture of the last cell has been taken."""
        until(lambda: self("") is not None and bool(rescuers(self.pid)))
        time.sleep(0.25)

    def die(self, how: str | int = signal.SIGKILL) -> None:
        if isinstance(how, int):
            os.kill(self.pid, how)
        else:
            self(how)
        until(lambda: not self._manager.is_alive())

    def restart(self) -> None:
        """What Jupyter does when a kernel has died: the same file, the same ports."""
        self._client.stop_channels()
        ports = self.ports
        self._start(lambda **options: self._manager.restart_kernel(now=True, **options))
        assert self.ports == ports

    def restart_on_request(self) -> None:
        self._client.stop_channels()
        self._start(lambda **options: self._manager.restart_kernel(now=False, **options))

    def end(self) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=False)


def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def rescuers(kernel: int | None = None) -> list[int]:
    """Processes of rescues that run with our store: children of this kernel, or of any."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "comm").read_text().strip() == "memkit-rescue":
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                ours = _MARK.encode() in (entry / "environ").read_bytes()
                if state != "Z" and ours and kernel in (None, int(parent)):
                    found.append(int(entry.name))
        except OSError:
            continue
    return found


_MARK = f"MEMKIT_TEST_RUN={os.getpid()}"


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    name, _, value = _MARK.partition("=")
    made = Kernel(tmp_path, **{name: value})
    made(_LOAD)
    yield made
    made.end()
    until(lambda: not rescuers())  # no orphan, whatever happened


_EVERYTHING = """
import asyncio, multiprocessing, sqlite3, subprocess, threading, time
import ipywidgets, matplotlib.pyplot as plt, numpy as np, pandas as pd, torch
from concurrent.futures import ThreadPoolExecutor
x = torch.randn(300, 300); total = float((x @ x).sum())
A = np.random.default_rng(0).random((300, 300)); B = A @ A
df = pd.DataFrame({'a': range(1000), 'b': pd.Series(['x', 'y'] * 500, dtype='string')})
pool = ThreadPoolExecutor(2); list(pool.map(abs, range(4)))
workers = multiprocessing.get_context('fork').Pool(2); workers.map(abs, [1, 2])
program = subprocess.Popen(['sleep', '20'])
async def ticking():
    while True: await asyncio.sleep(0.01)
task = asyncio.get_running_loop().create_task(ticking())
fig, ax = plt.subplots(); ax.plot([1, 2, 3]); plt.close(fig)
slider = ipywidgets.IntSlider(value=7)
thread = threading.Thread(target=time.sleep, args=(100,), daemon=True); thread.start()
con = sqlite3.connect(':memory:'); con.execute('create table t(a)')
SCALE = 2
def scaled(n): return n * SCALE
class Thing:
    def __init__(self): self.data = A
    def sum(self): return scaled(self.data.sum())
thing = Thing()
"""


def test_a_crash_among_threads_pools_and_programs(kernel: Kernel) -> None:
    """Everything picklable comes back, the rest is named; the next kernel starts on the same ports at once."""
    kernel(_EVERYTHING)
    kernel("held = df['a'].sum()")
    kernel.idle()
    kernel.die("import ctypes\nctypes.string_at(0)")
    kernel.restart()
    said = kernel(_LOAD)
    assert "while running cell" in said
    assert "import ctypes" in said
    assert "SIGSEGV" in said
    until(lambda: "still being saved" not in kernel("%memkit rescue list"))
    assert "pool of processes or threads" in kernel("%memkit rescue list")
    checks = {
        "abs(float((x @ x).sum()) - total) < 1e-2": "True",
        "np.allclose(A @ A, B), thing.data is A": "(True, True)",
        "round(thing.sum() / A.sum(), 6)": "2.0",
        "df.shape, str(df.b.dtype), held": "((1000, 2), 'string', 499500)",
        "len(ax.lines), fig is ax.figure": "(1, True)",
    }
    for source, expected in checks.items():
        got = kernel(source)
        assert expected in got.replace("np.int64(499500)", "499500"), (source, got)
    listed = kernel("%memkit rescue list")
    for name in ("workers", "task", "slider", "thread", "con", "program"):
        assert re.search(rf"^{name} ", listed, re.MULTILINE), name
    assert "given back" in listed


def test_two_deaths_in_a_row_and_all_at_once(kernel: Kernel) -> None:
    kernel("a = [1, 2]\nb = 'bee'\ndef f(): return a + [b]")
    kernel.idle()
    kernel.die("import os\nos.abort()")
    kernel.restart()
    assert "rescued" in kernel(_LOAD)
    kernel("a.append(3)\nc = 'new'")
    kernel.idle()
    kernel.die("import os\nos._exit(3)")
    kernel.restart()
    said = kernel(_LOAD)
    assert "code 3" in said
    kernel("%memkit rescue restore -q")
    assert "([1, 2, 3], 'bee', 'new', [1, 2, 3, 'bee'])" in kernel("a, b, c, f()")
    assert "nothing of an earlier kernel waits" in kernel("%memkit rescue list")


def test_a_restart_on_request_is_no_death(kernel: Kernel, tmp_path: Path) -> None:
    kernel("a = 1")
    kernel.idle()
    child = rescuers(kernel.pid)
    assert len(child) == 1
    kernel.restart_on_request()
    assert rescuers() == []
    assert "died" not in kernel(_LOAD)
    assert not list(tmp_path.glob("memkit-*/rescue-*"))


def test_switching_off_resetting_and_unloading(kernel: Kernel, tmp_path: Path) -> None:
    kernel("secret = 1")
    kernel.idle()
    assert "picture of" in kernel("%memkit rescue")
    kernel("%reset -f")
    kernel.idle()
    kernel("other = 2")
    kernel.idle()
    kernel.die()
    kernel.restart()
    kernel(_LOAD)
    listed = kernel("%memkit rescue list")
    assert "other" in listed
    assert "secret" not in listed
    assert "nothing" in kernel("%memkit rescue drop")
    assert not list(tmp_path.glob("memkit-*/rescue-*"))
    assert "off - switched off by you" in kernel("%memkit rescue off")
    until(lambda: not rescuers())
    kernel("%memkit rescue on")
    kernel.idle()
    assert len(rescuers(kernel.pid)) == 1
    kernel("%unload_ext memkit")
    until(lambda: not rescuers())


def test_every_cell_of_a_run_all_is_covered_when_the_next_one_kills(kernel: Kernel) -> None:
    """No idle moment between the cells: the picture is taken as the next begins."""
    for source in ("one = 1", "two = 2"):
        kernel._client.execute(source)
    kernel.die("import os\nos.kill(os.getpid(), 9)")
    kernel.restart()
    kernel(_LOAD)
    assert "(1, 2)" in kernel("one, two")


@pytest.mark.slow
def test_a_picture_goes_to_disk_under_pressure(kernel: Kernel) -> None:
    kernel("import memkit\na = [1]")
    kernel.idle()
    assert "True" in kernel("memkit.session().rescue.save_now(20)")
    kernel.die()
    kernel.restart()
    assert "died" in kernel(_LOAD)
    assert "[1]" in kernel("a")
