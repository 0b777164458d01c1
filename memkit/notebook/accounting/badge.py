"""One line after each cell: what it took."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from memkit.notebook.accounting.answer import duration
from memkit.notebook.accounting.record import CellRecord
from memkit.notebook.accounting.written import summary
from memkit.units import format_bytes

if TYPE_CHECKING:
    from memkit.notebook.cells import Cells

# The theme's second text colour, so that it stays behind the outputs it follows.
_STYLE = "font-size:85%;font-variant-numeric:tabular-nums;color:var(--jp-ui-font-color2,inherit)"


class Badge:
    """Listens to one shell's cells; its outputs carry the figures as metadata, which the notebook file keeps."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell

    def __call__(self, what: str, item: Any) -> None:
        if what == "record" and _is_worth(item):
            said = text(item)
            data = {"text/plain": said, "text/html": f'<div style="{_STYLE}">{html.escape(said)}</div>'}
            # Published, not displayed: `Out` and `_` stay as the cell has left them.
            self._shell.display_pub.publish(data, metadata={"memkit": summary(item)})


def switch(cells: Cells, shell: Any, on: bool) -> None:
    """Have badges shown or not; idempotent."""
    if on == (cells.badge is not None):
        return
    if cells.badge is not None:
        cells.listeners.remove(cells.badge)
        cells.badge = None
    else:
        cells.badge = Badge(shell)
        cells.listeners.append(cells.badge)


def text(record: CellRecord) -> str:
    """The line."""
    peak = "unknown" if record.needed is None else format_bytes(record.needed, signed=True)
    parts = [f"peak {peak}", f"delta {format_bytes(record.delta, signed=True)}", duration(record.seconds)]
    if record.vram_peak is not None:
        parts.insert(2, f"VRAM peak {format_bytes(record.vram_peak)}")
    return "  ".join([*parts, *filter(None, [record.note])])


def _is_worth(record: CellRecord) -> bool:
    """Not after a cell that was not run, nor below `%%memkit`, which says more."""
    return record.of_notebook and record.ran and not record.source.lstrip().startswith("%%memkit")
