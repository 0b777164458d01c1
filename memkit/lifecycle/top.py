"""Variables by size, tracked or not, memory that several share counted once."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from memkit.lifecycle import peek
from memkit.lifecycle.resource import ResourceInfo
from memkit.lifecycle.sizing import Size, size_of
from memkit.shown import Shown, Table
from memkit.units import format_bytes, format_seconds

# Never worth a line: they are not data.
_NOT_DATA = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType, type)


@dataclass(frozen=True, slots=True)
class TopRow:
    """One variable or resource: `size` is its own bytes, `shared` those already counted in a row above it."""

    name: str
    kind: str
    size: int
    shared: int
    exact: bool
    tracked: str
    tier: str
    idle: float | None


@dataclass(frozen=True, slots=True, repr=False)
class Top(Shown):
    """The largest first; `total` is all their bytes, each counted once."""

    rows: tuple[TopRow, ...]
    total: int
    hidden: int = 0

    def headline(self) -> str:
        more = f", {self.hidden} smaller ones not shown" if self.hidden else ""
        return f"{format_bytes(self.total)} in variables{more}"

    def tables(self) -> tuple[Table, ...]:
        rows = [
            (
                row.name,
                row.kind,
                ("" if row.exact else "~") + format_bytes(row.size),
                format_bytes(row.shared) if row.shared else "",
                row.tier,
                row.tracked or "no",
                format_seconds(row.idle) if row.idle is not None else "",
            )
            for row in self.rows
        ]
        columns = ("name", "kind", "size", "shared", "tier", "tracked", "idle")
        return (Table(columns, rows, frozenset({"size", "shared", "idle"}), empty="no variables yet"),)


def top(variables: Mapping[str, Any], resources: Iterable[ResourceInfo], count: int | None = 15) -> Top:
    """Rank variables and resources. Variables are measured now, each within a time box; demoted ones as recorded."""
    infos = {info.name: info for info in resources}
    seen: set[Any] = set()
    measured = {name: size_of(value).bytes for name, value in variables.items() if is_data(name, value)}
    rows = []
    # What several share is counted where it is tracked, or else in the largest.
    for name in sorted(measured, key=lambda name: (name in infos, measured[name]), reverse=True):
        rows.append(_row(name, variables[name], size_of(variables[name], seen=seen), infos.pop(name, None)))
    rows.extend(TopRow(i.name, i.kind, i.size, 0, i.exact, i.type, i.tier, i.idle) for i in infos.values())
    rows.sort(key=lambda row: row.size + row.shared, reverse=True)
    total = sum(row.size for row in rows if row.tier not in ("disk", "unloaded"))
    shown = rows if count is None else rows[:count]
    return Top(tuple(shown), total, len(rows) - len(shown))


def is_data(name: str, value: Any) -> bool:
    """Whether a name of the notebook is the user's data, not IPython's, a module, or one of memkit's own objects."""
    theirs = name.startswith("_") or name in ("In", "Out", "exit", "quit")
    return not (theirs or peek.is_ours(type(value)) or isinstance(value, _NOT_DATA))


def _row(name: str, value: Any, size: Size, info: ResourceInfo | None) -> TopRow:
    kind = type(value).__name__
    if info is None:
        return TopRow(name, kind, size.bytes, size.shared, size.exact, "", "ram", None)
    return TopRow(name, kind, size.bytes, size.shared, size.exact, info.type, info.tier, info.idle)
