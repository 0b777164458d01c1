"""One row of the table: a figure of memkit's, a peer's from the same run, their ratio, and what was aimed at."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """`value` is what `reach` speaks of; `low` and `high` are its smallest and largest over the repetitions."""

    what: str
    against: str
    value: float
    low: float
    high: float
    unit: str
    reach: float
    smaller_is_better: bool = True
    note: str = ""

    @property
    def reached(self) -> bool:
        return self.value <= self.reach if self.smaller_is_better else self.value >= self.reach

    def cells(self) -> tuple[str, ...]:
        sign = "<=" if self.smaller_is_better else ">="
        return (
            self.what,
            self.against,
            f"{self.value:.2f}{self.unit}",
            f"{self.low:.2f} - {self.high:.2f}",
            f"{sign} {self.reach:g}{self.unit}",
            "yes" if self.reached else "NO",
            self.note,
        )


def row(what: str, against: str, values: Sequence[float], unit: str, reach: float, **more: object) -> Row:
    """A row from repeated measurements: their median and spread."""
    return Row(what, against, statistics.median(values), min(values), max(values), unit, reach, **more)  # type: ignore[arg-type]


def ratios(ours: Callable[[], float], peer: Callable[[], float], repeat: int = 7) -> list[float]:
    """Ours over the peer's, measured in turn so that a drifting machine touches both alike."""
    return [ours() / peer() for _ in range(repeat)]


def render(rows: Sequence[Row]) -> str:
    """The table as Markdown."""
    head = ("what", "against", "median", "spread", "reach", "reached", "note")
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *(row.cells() for row in rows))]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])
