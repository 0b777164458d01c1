"""What spilling and restoring cost, against the same bytes written and read plainly on the same disk, in the same run.

Every figure is the median of an odd number of rounds in which the peer and memkit take turns; both end in a sync.
A ratio above 1 means memkit is faster. `extra` is the highest anonymous memory above the start, in bytes, seen by
a thread that reads /proc/self/status every millisecond (Linux), in a round that is not timed.
"""

from __future__ import annotations

import gc
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.table import Row, row
from memkit.lifecycle.store import Store
from memkit.units import GIB, MIB, format_bytes


@dataclass(frozen=True)
class Figure:
    """The peer's seconds over memkit's, round by round, and the anonymous bytes that memkit took on top."""

    what: str
    peer: str
    ratios: tuple[float, ...]
    extra: int


def _anonymous() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


@contextmanager
def _peak() -> Iterator[list[int]]:
    """Fills the list with the highest anonymous memory above that at the start."""
    start, highest, stop = _anonymous(), [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.001):
            highest[0] = max(highest[0], _anonymous() - start)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield highest
    finally:
        stop.set()
        thread.join()


def _seconds(action: Callable[[], Any]) -> float:
    gc.collect()
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _compare(
    what: tuple[str, str],
    ours: Callable[[], Any],
    peer: Callable[[], Any],
    rounds: int,
    between: Callable[[], Any] = lambda: None,
) -> Figure:
    found = []
    for _ in range(rounds):
        between()
        theirs = _seconds(peer)
        between()
        found.append(theirs / _seconds(ours))
    gc.collect()
    with _peak() as highest:  # in a round of its own: the watching thread takes time
        ours()
    return Figure(*what, tuple(found), highest[0])


def _write(path: Path, view: memoryview) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        done = 0
        while done < len(view):
            done += os.write(fd, view[done : done + 8 * MIB])  # steadier than one write, and never slower
        os.fsync(fd)
    finally:
        os.close(fd)


def _cold(*paths: Path | None) -> None:
    """Have the files read from the disk again."""
    for path in paths:
        if path is not None:
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def arrays(size: int = GIB, rounds: int = 5, folder: Path | None = None) -> list[Figure]:
    """An array of random float64: spill against write and sync; restore and sum against `np.fromfile` and sum."""
    import numpy as np

    with tempfile.TemporaryDirectory(dir=folder) as base:
        value, plain, store = np.random.default_rng(0).random(size // 8), Path(base) / "plain", Store(Path(base))
        values = {"value": value}

        def spill() -> None:
            store.discard(store.spill(values))

        def write() -> None:
            _write(plain, memoryview(value).cast("B"))
            plain.unlink()

        figures = [_compare((f"spill {format_bytes(size)} float64", "write + fsync"), spill, write, rounds)]
        _write(plain, memoryview(value).cast("B"))
        stored = store.spill(values)
        restore: Any = lambda: float(store.load(stored)["value"].sum())  # type: ignore[attr-defined]  # noqa: E731
        read: Any = lambda: float(np.fromfile(plain).sum())  # noqa: E731
        restore(), read()
        figures.append(_compare(("restore and sum it, cached", "np.fromfile + sum"), restore, read, rounds))
        figures.append(
            _compare(
                ("restore and sum it, cold", "np.fromfile + sum"),
                restore,
                read,
                rounds,
                lambda: _cold(plain, stored.path),
            )
        )
        store.close()
    return figures


def _frame(size: int) -> Any:
    """A frame of about `size` bytes: numbers, times, categories, strings as `str` and as objects."""
    import numpy as np
    import pandas as pd

    rng, rows = np.random.default_rng(0), size // 220
    words = np.array([f"customer {i} of the north" for i in range(50_000)], dtype=object)
    columns = {
        **{f"f{i}": rng.random(rows) for i in range(6)},
        **{f"i{i}": rng.integers(0, 1_000_000, rows) for i in range(4)},
        "flag": rng.random(rows) < 0.5,
        "when": pd.date_range("2020-01-01", periods=rows, freq="s", tz="UTC"),
        "kind": pd.Categorical.from_codes(rng.integers(0, 5, rows), list("abcde")),
        "text": pd.Series([f"order {i:09d}" for i in range(rows)]),
        "object": pd.Series(words[rng.integers(0, len(words), rows)], dtype=object),
    }
    return pd.DataFrame(columns).copy()


def frames(size: int = 500 * MIB, rounds: int = 3, folder: Path | None = None) -> list[Figure]:
    """A frame of mixed types and strings: spill and restore against `to_pickle`, a sync, and `read_pickle`."""
    import pandas as pd

    with tempfile.TemporaryDirectory(dir=folder) as base:
        values, plain, store = {"frame": _frame(size)}, Path(base) / "plain.pkl", Store(Path(base))

        def to_pickle() -> None:
            values["frame"].to_pickle(plain)
            fd = os.open(plain, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)

        def both() -> None:
            stored = store.spill(values)
            store.load(stored)
            store.discard(stored)

        def both_pickle() -> None:
            to_pickle()
            pd.read_pickle(plain)

        figures = [
            _compare(
                ("spill a mixed frame alone", "to_pickle + fsync"),
                lambda: store.discard(store.spill(values)),
                to_pickle,
                rounds,
            ),
            _compare(("spill and restore a mixed frame", "to_pickle + fsync, read_pickle"), both, both_pickle, rounds),
        ]
        store.close()
    return figures


def rows() -> Iterator[Row]:
    for figures, reach in ((arrays(), 0.8), (frames(), 1.0)):
        for one in figures:
            note = f"extra {format_bytes(one.extra)}"
            yield row(one.what, one.peer, one.ratios, "x", reach, smaller_is_better=False, note=note)
        extra = [max(one.extra for one in figures) / MIB]
        yield row("peak extra anonymous memory", figures[0].what, extra, " MiB", 64)
