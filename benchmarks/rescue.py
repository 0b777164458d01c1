"""What the rescue costs a kernel after each cell, and how fast it is when a kernel has died."""

from __future__ import annotations

import json
import os
import signal
import statistics
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

from jupyter_client.manager import KernelManager

from benchmarks.table import Row, row

_MIB = 2**20
_VALUES = 512  # MiB
_REPEAT = 5

_COST = textwrap.dedent("""
    import json, mmap, time
    import memkit
    def rss():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    # Pages of 4 KiB, as a heap of small objects has: a fork costs by the page, and huge ones would hide it.
    held = mmap.mmap(-1, max(mmap.PAGESIZE, {size} - rss()), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    held.madvise(mmap.MADV_NOHUGEPAGE)
    for at in range(0, len(held), mmap.PAGESIZE):
        held[at] = 1
    rescuer = memkit.session().rescue.rescuer
    rescuer.take(force=True)
""")
_TAKE = textwrap.dedent("""
    values = []
    for _ in range(30):
        time.sleep(0.05)
        began, worked = time.perf_counter(), time.thread_time()
        rescuer.take(force=True)
        values.append(((time.thread_time() - worked) * 1000, (time.perf_counter() - began) * 1000))
    print(json.dumps([rss(), values]))
""")


class _Kernel:
    """A real kernel with memkit loaded, whose store is in `folder`."""

    def __init__(self, folder: str) -> None:
        self._environment = dict(os.environ, MEMKIT_STORE_DIR=folder)
        self._manager = KernelManager()
        self._manager.start_kernel(env=self._environment)
        self._connect()

    def _connect(self) -> None:
        self._client = self._manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=60)
        self.run("%load_ext memkit")

    def run(self, source: str) -> str:
        out: list[str] = []

        def hook(message: dict) -> None:
            if message["msg_type"] == "stream":
                out.append(message["content"]["text"])
            if message["msg_type"] == "error":
                raise RuntimeError("\n".join(message["content"]["traceback"]))

        self._client.execute_interactive(source, output_hook=hook, timeout=300)
        return "".join(out)

    def kill_and_restart(self) -> None:
        os.kill(self._manager.provisioner.process.pid, signal.SIGKILL)
        self._client.stop_channels()
        time.sleep(0.1)
        self._manager.restart_kernel(now=True, env=self._environment)
        self._connect()

    def end(self) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel()


def per_cell() -> Iterator[Row]:
    """The whole cost in the kernel's thread, as processor time: fork, ending the child before, and the bookkeeping.

    The time on the clock, which other work on the machine makes longer, is in the note.
    """
    for what, size, reach in (("1 GiB", 1024 * _MIB, 30.0), ("100 MiB", 100 * _MIB, 6.0)):
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
            kernel = _Kernel(folder)
            kernel.run(_COST.format(size=size))
            rss, values = json.loads(kernel.run(_TAKE).strip().splitlines()[-1])
            kernel.end()
        clock = statistics.median(taken for _, taken in values)
        note = f"RSS {rss / _MIB:.0f} MiB in pages of 4 KiB; {clock:.1f} ms on the clock"
        yield row(
            f"rescue: picture after a cell, {what}", "-", [worked for worked, _ in values], " ms", reach, note=note
        )


_FILL = "import numpy as np\nvalues = [np.random.default_rng(i).random({mib} * 2**17 // 8) for i in range(8)]\n"
_FILL += "v0, v1, v2, v3, v4, v5, v6, v7 = values; del values"


def _raw_write(folder: str, piece: bytes, count: int) -> float:
    began = time.perf_counter()
    path = Path(folder) / "raw"
    with open(path, "wb", buffering=0) as file:
        for _ in range(count):
            file.write(piece)
        os.fdatasync(file.fileno())
    seconds = time.perf_counter() - began
    path.unlink()
    return seconds


def after_death() -> Iterator[Row]:
    """From the kernel's death until every variable is on disk, and until the next kernel has them all again."""
    from memkit.lifecycle.rescue import manifest

    piece = os.urandom(8 * _MIB)
    shares, seconds = [], []
    for _ in range(_REPEAT):
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
            raw = _raw_write(folder, piece, _VALUES // 8)
            kernel = _Kernel(folder)
            kernel.run(_FILL.format(mib=_VALUES))
            time.sleep(0.5)
            kernel.kill_and_restart()
            (found,) = Path(folder).glob("memkit-*/rescue-*")
            while not manifest.read(found).complete:
                time.sleep(0.02)
            saved = (found / manifest.NAME).stat().st_mtime - manifest.read(found).died
            began = time.perf_counter()
            kernel.run("%memkit rescue restore -q")
            seconds.append(time.perf_counter() - began)
            kernel.end()
            shares.append(raw / saved)
    yield row(
        f"rescue: {_VALUES} MiB on disk after a death, speed", "raw write of as many bytes, synced", shares, "x", 0.6,
        smaller_is_better=False,
    )  # fmt: skip
    yield row(f"rescue: {_VALUES} MiB back, every byte checked", "-", seconds, " s", 2.0)


def rows() -> Iterator[Row]:
    """All rows of this file."""
    yield from per_cell()
    yield from after_death()
