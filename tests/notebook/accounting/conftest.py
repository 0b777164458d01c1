"""Records to order, and the records of the cells that a test notebook has run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from memkit.notebook.cells import CellRecord
from memkit.notebook.extension import loaded
from memkit.units import MIB

# Mapped, not from the heap, where an earlier test may have left a free block of this size.
TAKE = """import mmap
def take(mib):
    m = mmap.mmap(-1, mib * 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    m[::4096] = bytes(len(m) // 4096)
    return m
"""


def made(**fields: Any) -> CellRecord:
    """A record of a cell that went from 100 to 150 MiB and stood at 300 in between."""
    known = {
        "number": 1, "cell_id": "a", "source": "x = load()", "started": 1_000_000.0, "seconds": 1.5,
        "before": 80 * MIB, "after": 130 * MIB, "peak": 300 * MIB, "method": "kernel high-water mark",
        "gc_seconds": 0.25, "gc_runs": 3, "error": None, "rss_before": 100 * MIB, "rss_after": 150 * MIB,
        "execution_count": 7,
    }  # fmt: skip
    return CellRecord(**(known | fields))


@pytest.fixture
def records(notebook: Any) -> Callable[[], list[CellRecord]]:
    """The records so far, of the notebook of this test."""
    extension = loaded(notebook.shell)
    assert extension is not None
    return lambda: list(extension.cells.records)
