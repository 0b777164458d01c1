"""Answers that show themselves: the same numbers as text in a terminal and as a table in a notebook."""

from __future__ import annotations

import dataclasses
import html
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Colours and fonts come from the theme of whatever page the table stands on.
_TABLE = "border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.3em 0"
_CELL = "padding:2px 10px;text-align:{align};border:none"
_HEAD = _CELL + ";font-weight:600;border-bottom:1px solid var(--jp-border-color1,currentColor)"


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """Rows of text below column titles; columns named in `right` are set flush right."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    right: frozenset[str] = frozenset()
    empty: str = ""

    def text(self) -> str:
        """The table for a terminal, one line a row."""
        if not self.rows:
            return self.empty
        widths = [max(len(row[i]) for row in (self.columns, *self.rows)) for i in range(len(self.columns))]
        return "\n".join(self._line(row, widths) for row in (self.columns, *self.rows))

    def _line(self, row: Sequence[str], widths: Sequence[int]) -> str:
        cells = zip(self.columns, row, widths, strict=True)
        return "  ".join(c.rjust(w) if name in self.right else c.ljust(w) for name, c, w in cells).rstrip()

    def html(self) -> str:
        """The table as HTML that survives an untrusted notebook."""
        if not self.rows:
            return f"<div>{html.escape(self.empty)}</div>" if self.empty else ""
        head = "".join(self._cell("th", _HEAD, name, name) for name in self.columns)
        body = "".join(
            "<tr>" + "".join(self._cell("td", _CELL, n, c) for n, c in zip(self.columns, row, strict=True)) + "</tr>"
            for row in self.rows
        )
        return f'<table style="{_TABLE}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'

    def _cell(self, tag: str, style: str, column: str, text: str) -> str:
        align = "right" if column in self.right else "left"
        return f'<{tag} style="{style.format(align=align)}">{html.escape(text)}</{tag}>'


class Shown(ABC):
    """Base of every answer: a headline and tables, as text, HTML, a dict or JSON. Sizes in bytes, times in seconds."""

    __slots__ = ()

    @abstractmethod
    def headline(self) -> str:
        """The answer in one line."""

    def tables(self) -> Sequence[Table]:
        """What stands below the headline."""
        return ()

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain Python data."""
        assert dataclasses.is_dataclass(self)
        return {field.name: plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    def to_json(self) -> str:
        """The fields as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def save(self, path: str | Path) -> None:
        """Write the JSON to a file."""
        Path(path).write_text(self.to_json() + "\n", encoding="utf-8")

    def __str__(self) -> str:
        return "\n".join(filter(None, (self.headline(), *(table.text() for table in self.tables()))))

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        body = "".join(table.html() for table in self.tables())
        return f"<div>{html.escape(self.headline()).replace(chr(10), '<br>')}{body}</div>"


def plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    to_dict = getattr(type(value), "to_dict", None)
    if to_dict is not None and dataclasses.is_dataclass(type(value)):
        return plain(to_dict(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item) for item in value), key=str)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
