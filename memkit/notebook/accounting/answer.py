"""What one cell took, as an answer that shows itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memkit.notebook.accounting.record import CellRecord
from memkit.shown import Shown, Table
from memkit.units import MIB, format_bytes, format_seconds

if TYPE_CHECKING:
    from memkit.notebook.growth import Grown

# Below this, libraries' pages that happen to be touched are not worth a line.
_WORTH_SAYING = MIB


@dataclass(frozen=True, slots=True, repr=False)
class CellAnswer(Shown):
    """The record of a cell, the budget it was given (bytes) and the biggest variables it has made or grown."""

    cell: CellRecord
    budget: int | None = None
    biggest: tuple[Grown, ...] = ()

    @property
    def peak(self) -> int | None:
        """Bytes by which memory stood above the beginning at most."""
        return self.cell.needed

    @property
    def delta(self) -> int:
        """Bytes that the cell keeps."""
        return self.cell.delta

    @property
    def freed(self) -> int | None:
        """Bytes that the cell took and gave back."""
        return self.cell.freed

    @property
    def seconds(self) -> float:
        return self.cell.seconds

    def headline(self) -> str:
        budget = f" of a budget of {format_bytes(self.budget)}" if self.budget is not None else ""
        return "\n".join([line(self.cell) + budget, *details(self.cell)])

    def tables(self) -> tuple[Table, ...]:
        rows = [
            (f"{one.name} in {one.where}" if one.where else one.name, one.type, format_bytes(one.size), _how(one))
            for one in self.biggest
        ]
        return (Table(("name", "type", "size", ""), rows, frozenset({"size"})),)


def line(record: CellRecord) -> str:
    """Peak, delta, freed and time of a cell in one line."""
    peak = "unknown" if record.needed is None else format_bytes(record.needed, signed=True)
    freed = f", freed {format_bytes(record.freed)}" if record.freed is not None else ""
    delta = format_bytes(record.delta, signed=True)
    return f"cell {record.label}: peak {peak}, delta {delta}{freed}, {duration(record.seconds)}"


def details(record: CellRecord) -> list[str]:
    """What more there is to say, a line each."""
    said = []
    if record.gc_runs:
        runs = f"{record.gc_runs} runs" if record.gc_runs > 1 else "1 run"
        said.append(f"garbage collection {record.gc_seconds * 1000:.1f} ms in {runs}")
    if record.mapped is not None and record.mapped >= _WORTH_SAYING:
        said.append(f"files mapped {format_bytes(record.mapped, signed=True)}, which the system can take back")
    if record.vram_peak is not None:
        said.append(f"VRAM peak {format_bytes(record.vram_peak)}")
    if record.error:
        said.append(f"ended by {record.error}")
    if record.note:
        said.append(record.note)
    return said


def duration(seconds: float) -> str:
    """Seconds as ``0.31 s`` below a minute, ``7:20`` above."""
    return f"{seconds:.2f} s" if seconds < 60 else format_seconds(seconds)


def _how(one: Grown) -> str:
    return "new" if one.new else "grown"
