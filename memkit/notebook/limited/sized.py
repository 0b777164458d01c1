"""Runs a notebook once in a box of some size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memkit.errors import LimitError
from memkit.notebook.limited.limit import Box, Limit
from memkit.notebook.limited.outcome import Outcome, annotate, told
from memkit.notebook.limited.outside import Outside
from memkit.notebook.report import document
from memkit.notebook.report.execution import Wish
from memkit.notebook.report.kernel import Start
from memkit.notebook.report.result import Progress
from memkit.notebook.report.runner import execute
from memkit.units import format_bytes

Watch = Callable[[Progress], object]


@dataclass(frozen=True, slots=True)
class Job:
    """What is run and how; the same for every size. `copy` is where the executed notebook goes."""

    source: Path
    copy: Path
    wish: Wish
    limit: Limit


def run_at(job: Job, size: int, on_progress: Watch = lambda progress: None) -> tuple[Outcome, Any]:
    """Run in a box of `size` bytes; the outcome, and the notebook with its outputs. Raises NotebookError, LimitError.

    For the main thread; no event loop may run in it.
    """
    notebook = document.read(job.source)
    return _run(job, size, notebook, on_progress), notebook


def keep(job: Job, outcome: Outcome, notebook: Any) -> None:
    """Write the executed notebook with what its cells took; raises OSError."""
    annotate(notebook, outcome)
    document.save(notebook, job.copy, job.source)


def idle(job: Job, size: int) -> Outcome:
    """A kernel that runs nothing, in a box of `size` bytes; nothing is written."""
    notebook = document.read(job.source)
    notebook.cells = []
    return _run(job, size, notebook, lambda progress: None)


def too_small(size: int, idle: Outcome) -> LimitError:
    """A kernel does not even start in so little; `idle` is one with more, or the one that did not start."""
    if idle.began and idle.idle:
        told = f"one that runs nothing needs {format_bytes(idle.idle)}; ask for more with --memory"
    else:
        told = str(idle.result.death.cause) if idle.result.death else "how much it needs is not known"
    return LimitError(f"no kernel starts in {format_bytes(size)}: {told}")


def _run(job: Job, size: int, notebook: Any, on_progress: Watch) -> Outcome:
    outside, before = Outside(resets=not job.wish.memkit), _Idle()
    with job.limit.box(size) as box:
        result = execute(
            notebook, job.source, job.copy, job.wish,
            start=_start(box, outside, before), on_progress=lambda progress: on_progress(outside.follow(progress)),
        )  # fmt: skip
        peak, kills = box.peak(), box.kills()
        result = dataclasses.replace(result, death=told(result.death, size, kills))
        return Outcome(result, size, job.limit.name, peak, kills, before.held, outside.peaks, box.notes, box.measure)


class _Idle:
    """What the kernel held when it was last looked at before its first cell."""

    def __init__(self) -> None:
        self.held: int | None = None

    def look(self, box: Box) -> None:
        self.held = box.held() or self.held


def _start(box: Box, outside: Outside, before: _Idle) -> Start:
    def started(pid: int) -> None:
        box.started(pid)
        outside.started(pid)

    def look() -> None:
        box.look()
        outside.look()
        if not outside.began:
            before.look(box)

    return Start(box.prefix, box.environ, started, look)
