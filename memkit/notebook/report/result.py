"""What running a notebook came to; sizes in bytes, durations in seconds, times in seconds since 1970."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from memkit.memory.sample import Sample
from memkit.notebook.cells import CellRecord
from memkit.notebook.report.trace import Resident, Trace

State = Literal["done", "failed", "timed out", "died", "interrupted", "not run"]

OK, CELL_FAILED, BAD_INPUT, KERNEL_DIED, INTERRUPTED = 0, 1, 2, 3, 130  # 130 = 128 + SIGINT, as shells have it


@dataclass(frozen=True, slots=True)
class CellRun:
    """One code cell. `record` is what memkit measured in the kernel, None where it could not."""

    index: int  # in the notebook, from 0
    number: int  # among the cells that are run, from 1
    title: str
    state: State = "not run"
    started: float = 0.0
    seconds: float = 0.0
    record: CellRecord | None = None
    error: str | None = None

    @property
    def ran(self) -> bool:
        return self.state != "not run"

    @property
    def peak(self) -> int | None:
        return None if self.record is None else self.record.peak

    @property
    def delta(self) -> int | None:
        return None if self.record is None else self.record.delta


@dataclass(frozen=True, slots=True)
class Death:
    """The end of a kernel that nobody asked for: in which cell (None: in none of them), why, and what was there then.

    `said` is the end of what the kernel wrote to its own stderr.
    """

    cell: CellRun | None
    cause: str
    at: float
    level: str | None
    sample: Sample | None
    resources: tuple[Resident, ...]
    resource_count: int
    said: str


@dataclass(frozen=True, slots=True)
class ReportResult:
    """The whole run. `notebook` is the executed copy, `output` the page, if one was made."""

    source: Path
    output: Path | None
    notebook: Path
    kernel: str
    started: float
    seconds: float
    cells: tuple[CellRun, ...]
    trace: Trace
    death: Death | None
    interrupted: bool
    notes: tuple[str, ...]

    @property
    def notebook_link(self) -> str:
        """The executed copy as seen from the page."""
        return os.path.relpath(self.notebook, self.output.parent if self.output else None)

    @property
    def exit_code(self) -> int:
        """0, or 1 for a failed cell, 3 for a dead kernel, 130 when it was interrupted."""
        if self.interrupted:
            return INTERRUPTED
        if self.death is not None:
            return KERNEL_DIED
        return CELL_FAILED if any(cell.state in ("failed", "timed out") for cell in self.cells) else OK


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: the cell, and while it runs what is known of it so far."""

    cell: CellRun
    total: int
    running: bool
    seconds: float
    peak: int | None
    delta: int | None
