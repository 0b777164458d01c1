"""What a run in a box came to, and what its kernel died of. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from memkit.notebook.report.kernel import SUSPICION
from memkit.notebook.report.result import CellRun, Death, ReportResult
from memkit.units import format_bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run at `size` bytes; None for what could not be told.

    `peak` is the highest use of the whole box and `measure` what that counts, `kills` how often the system has killed
    in it for want of memory, `idle` what the kernel held before its first cell. `peaks` are those of cells, by number,
    read from outside.
    """

    result: ReportResult
    size: int
    method: str
    peak: int | None
    kills: int | None
    idle: int | None = None
    peaks: Mapping[int, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    measure: str = ""

    @property
    def completed(self) -> bool:
        return self.result.exit_code == 0

    @property
    def began(self) -> bool:
        """Whether the kernel came as far as a cell, or would have."""
        return self.result.death is None or self.result.death.cell is not None or any(c.ran for c in self.result.cells)

    def peak_of(self, cell: CellRun) -> int | None:
        """The highest resident size of the kernel while a cell ran; of one that was killed at the limit, the limit."""
        if cell.state == "died" and self.kills:
            return self.peak
        return cell.peak or self.peaks.get(cell.number)

    def failure(self) -> str:
        """Which cell failed and how, in a few words; empty where all went well."""
        if self.completed:
            return ""
        cell = next((c for c in self.result.cells if c.state in ("failed", "timed out", "died", "interrupted")), None)
        if cell is None:
            return self.result.death.cause if self.result.death else "interrupted"
        return f"cell {cell.number}: {self._how(cell)}"

    def _how(self, cell: CellRun) -> str:
        if cell.state == "failed":
            return cell.error or "failed"
        if cell.state != "died":
            return cell.state
        return "out of memory, killed by the system" if self.kills else "the kernel died"


def told(death: Death | None, size: int, kills: int | None) -> Death | None:
    """The same death with what the box knows of its cause."""
    if death is None:
        return None
    if kills is None or SUSPICION not in death.cause:
        before = _before(kills) if kills else ""
        return dataclasses.replace(death, cause=death.cause + before)
    if kills:
        why = f": it and what it had started needed more than {format_bytes(size)}"
    else:
        why = ", by somebody and not for want of memory: the system has killed nothing at this limit"
    return dataclasses.replace(death, cause=death.cause.replace(SUSPICION, why))


def _before(kills: int) -> str:
    times = "once" if kills == 1 else f"{kills} times"
    return f"; before that the system had killed a process at the limit {times}"


def annotate(notebook: Any, outcome: Outcome) -> None:
    """Write into each cell's metadata what it took, so that the notebook file tells; sizes in bytes."""
    notebook.metadata["memkit_run"] = {
        "memory": outcome.size, "method": outcome.method, "peak": outcome.peak, "kills": outcome.kills,
        "exit_code": outcome.result.exit_code,
    }  # fmt: skip
    for cell in outcome.result.cells:
        if cell.ran:
            notebook.cells[cell.index].metadata["memkit"] = _figures(outcome, cell)


def _figures(outcome: Outcome, cell: CellRun) -> dict[str, Any]:
    record = {} if cell.record is None else cell.record.to_dict()
    known = {key: value for key, value in record.items() if key not in ("source", "cell_id")}
    own = {"seconds": cell.seconds, "peak": outcome.peak_of(cell), "state": cell.state, "error": cell.error}
    return {"number": cell.number, **known, **own}
