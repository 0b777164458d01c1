"""All cells by what they took."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from memkit.notebook.accounting.answer import duration
from memkit.notebook.accounting.record import CellRecord
from memkit.shown import Shown, Table
from memkit.units import format_bytes

ORDERS: Mapping[str, Callable[[CellRecord], float]] = {
    "peak": lambda record: -1 if record.needed is None else record.needed,
    "delta": lambda record: record.delta,
    "time": lambda record: record.seconds,
}


@dataclass(frozen=True, slots=True, repr=False)
class Ranking(Shown):
    """Records in order, the most first; `hidden` more are not shown."""

    cells: tuple[CellRecord, ...]
    order: str = "peak"
    hidden: int = 0

    @classmethod
    def of(cls, records: Iterable[CellRecord], order: str = "peak", count: int | None = None) -> Ranking:
        """The notebook's own cells that were run: neither what cells ran in turn nor what a front end did."""
        cells = sorted((r for r in records if r.of_notebook and r.ran), key=ORDERS[order], reverse=True)
        shown = tuple(cells if count is None else cells[:count])
        return cls(shown, order, len(cells) - len(shown))

    def headline(self) -> str:
        if not self.cells:
            return "no cell has been run since memkit was loaded"
        hidden = f", {self.hidden} more not shown" if self.hidden else ""
        methods = " and ".join(sorted({cell.method for cell in self.cells}))
        return f"{len(self.cells)} cells by {self.order}{hidden}; peak above the beginning, from: {methods}"

    def tables(self) -> tuple[Table, ...]:
        columns = ["cell", "first line", "peak", "delta", "freed", "time", "GC"]
        columns += ["VRAM peak"] * any(cell.vram_peak is not None for cell in self.cells)
        columns += ["note"] * any(_note(cell) for cell in self.cells)
        rows = [[_COLUMNS[name](cell) for name in columns] for cell in self.cells]
        return (Table(tuple(columns), rows, frozenset(columns) - {"first line", "note"}),)


def _note(cell: CellRecord) -> str:
    return ", ".join(filter(None, (cell.error, cell.note)))


_COLUMNS: Mapping[str, Callable[[CellRecord], str]] = {
    "cell": lambda cell: cell.label,
    "first line": lambda cell: cell.title,
    "peak": lambda cell: format_bytes(cell.needed, signed=True),
    "delta": lambda cell: format_bytes(cell.delta, signed=True),
    "freed": lambda cell: format_bytes(cell.freed),
    "time": lambda cell: duration(cell.seconds),
    "GC": lambda cell: duration(cell.gc_seconds),
    "VRAM peak": lambda cell: format_bytes(cell.vram_peak),
    "note": _note,
}
