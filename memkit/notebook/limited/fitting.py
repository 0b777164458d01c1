"""Looks for the smallest memory in which a notebook completes, with a fresh kernel for each try."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memkit.notebook.limited.fit import Bounds, Fit, Step, search
from memkit.notebook.limited.outcome import Outcome
from memkit.notebook.limited.sized import Job, Watch, idle, keep, run_at, too_small

# A notebook that lives from hand to mouth reads the same pages again and again and need not come to an end.
_PATIENCE, _AT_LEAST = 10.0, 60.0

Told = Callable[[int, Step, float], object]


class Fitting:
    """One search; `best` is the run to be shown: the last that completed, else the first."""

    def __init__(self, job: Job, upper: int, on_step: Told, on_progress: Watch) -> None:
        self.best: tuple[Outcome, Any] | None = None
        self.interrupted = False
        self._job, self._upper = job, upper
        self._on_step, self._on_progress = on_step, on_progress
        self._tried = 0

    def run(self, on_lower: Callable[[int], object]) -> Fit:
        """Raises LimitError where not even a kernel starts in the upper bound, NotebookError before anything is run."""
        alone = idle(self._job, self._upper)
        lower = alone.idle
        if not alone.began or lower is None or lower >= self._upper:
            raise too_small(self._upper, alone)
        on_lower(lower)
        return search(self._attempt, Bounds(lower, self._upper))

    def _attempt(self, size: int) -> Step | None:
        outcome, notebook = self._run(size)
        if outcome.result.interrupted:
            self.interrupted = True
            return None
        if outcome.completed or self.best is None:
            self.best = outcome, notebook
            keep(self._job, outcome, notebook)
        step = Step(size, outcome.failure(), outcome.peak)
        self._tried += 1
        self._on_step(self._tried, step, outcome.result.seconds)
        self._wait_no_longer_than(outcome)
        return step

    def _run(self, size: int) -> tuple[Outcome, Any]:
        """What is written while it runs goes to a private place: it may be of less use than what there is already."""
        with tempfile.TemporaryDirectory(prefix="memkit-run-") as folder:
            job = dataclasses.replace(self._job, copy=Path(folder) / self._job.copy.name)
            outcome, notebook = run_at(job, size, self._on_progress)
        result = dataclasses.replace(outcome.result, notebook=self._job.copy)
        return dataclasses.replace(outcome, result=result), notebook

    def _wait_no_longer_than(self, outcome: Outcome) -> None:
        """After the first run that completed: a cell that then takes ten times as long has failed."""
        if self._job.wish.timeout is None and outcome.completed:
            longest = max((cell.seconds for cell in outcome.result.cells), default=0.0)
            wish = dataclasses.replace(self._job.wish, timeout=max(_AT_LEAST, _PATIENCE * longest))
            self._job = dataclasses.replace(self._job, wish=wish)
