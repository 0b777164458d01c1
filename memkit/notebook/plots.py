"""Pictures of this kernel's memory: `memkit.plot()`, `%memkit plot`, and the timeline of reports."""

from __future__ import annotations

import functools
import importlib.util
import io
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from memkit import api
from memkit.config import closest
from memkit.errors import MemkitError
from memkit.lifecycle.events import Event
from memkit.memory.pressure import Thresholds
from memkit.memory.sample import Sample
from memkit.notebook.drawing import Cell, draw
from memkit.notebook.look import TIERS, ThemeName
from memkit.notebook.series import by_tier, rows, sparkline
from memkit.shown import Shown, Table
from memkit.units import format_bytes, format_seconds
from memkit.wiring import Session

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("tiers",)
_DPI = 144  # shown at half that size, so that it is sharp on dense screens


def timeline(
    samples: Sequence[Sample],
    *,
    events: Iterable[Event] = (),
    cells: Iterable[Cell] = (),
    thresholds: Thresholds | None = None,
    theme: ThemeName = "light",
) -> Figure:
    """Memory by tier over time, with the limit, its thresholds, what happened to resources, and cells.

    Times in seconds since 1970, sizes in bytes. For the main thread: matplotlib is not safe in others.
    """
    return draw(samples, events, cells, thresholds, theme)


class Plot(Shown):
    """A picture that shows itself: PNG in a notebook, a table with small curves in a terminal.

    `figure` is matplotlib's, drawn when first asked for; `data` one row a reading, a pandas DataFrame where pandas is
    installed, else a list of dicts.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        events: Iterable[Event] = (),
        cells: Iterable[Cell] = (),
        thresholds: Thresholds | None = None,
    ) -> None:
        self.samples = tuple(samples)
        self._events, self._cells, self._thresholds = tuple(events), tuple(cells), thresholds

    @functools.cached_property
    def figure(self) -> Figure:
        return timeline(self.samples, events=self._events, cells=self._cells, thresholds=self._thresholds)

    @functools.cached_property
    def data(self) -> Any:
        table = rows(self.samples)
        if "pandas" not in sys.modules and importlib.util.find_spec("pandas") is None:
            return table
        import pandas

        return pandas.DataFrame(table)

    def headline(self) -> str:
        if not self.samples:
            return "no readings yet - the monitor takes the first one as soon as it runs"
        first, last = self.samples[0], self.samples[-1]
        most = max(self.samples, key=lambda sample: sample.used)
        at = time.strftime("%H:%M:%S", time.localtime(most.time))
        span = f"memory over {format_seconds(last.time - first.time)} ({len(self.samples)} readings)"
        now = f"{format_bytes(last.used)} of {format_bytes(last.limit)} in use"
        return f"{span}: {now}, at most {format_bytes(most.used)} at {at}"

    def tables(self) -> tuple[Table, ...]:
        found = [by_tier(sample) for sample in self.samples]
        lines = []
        for key, tier in TIERS.items():
            values = [row[key] for row in found]
            if any(values):
                most = max(value or 0 for value in values)
                lines.append((tier.label, format_bytes(values[-1]), format_bytes(most), sparkline(values)))
        return (Table(("tier", "now", "most", "over time"), lines, frozenset({"now", "most"})),)

    def to_dict(self) -> dict[str, Any]:
        return {"what": "tiers", "rows": rows(self.samples), "events": [event._asdict() for event in self._events]}

    def _repr_html_(self) -> None:  # type: ignore[override]  # a notebook would prefer it to the picture
        return None

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        out = io.BytesIO()
        self.figure.savefig(out, format="png", dpi=_DPI)
        width, height = self.figure.get_size_inches() * _DPI / 2
        return out.getvalue(), {"width": round(width), "height": round(height)}


def plot(what: str = "tiers", *, session: Session | None = None) -> Plot:
    """Memory by tier since the start, of the default session; raises MemkitError for an unknown word."""
    if what not in KINDS:
        raise MemkitError(f"no plot {what!r}{closest(what, KINDS)}; there is: {', '.join(KINDS)}")
    session = api.session() if session is None else session
    return Plot(session.monitor.history.recent(), session.log, _cells_of(session), session.thresholds)


def _cells_of(session: Session) -> tuple[Cell, ...]:
    """The cells of the notebook that this session belongs to, if it belongs to one."""
    from memkit.notebook.extension import loaded

    interactive = sys.modules.get("IPython")
    shell = interactive.get_ipython() if interactive is not None else None
    extension = None if shell is None else loaded(shell)
    return tuple(extension.cells.records) if extension is not None and extension.session is session else ()
