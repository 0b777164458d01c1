"""The memory timeline, drawn with matplotlib's objects (never pyplot: it mixes up figures, and keeps them)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from memkit.lifecycle.events import Event
from memkit.memory.pressure import Thresholds
from memkit.memory.sample import Sample
from memkit.notebook import look
from memkit.notebook.eventstrip import draw_events, lanes_of, level_spans
from memkit.notebook.look import EMERGENCY, OWN_ROWS, STACKED, THEMES, WARNING, Theme, ThemeName
from memkit.notebook.series import by_tier, byte_unit, thin, time_unit
from memkit.units import format_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_POINTS = 500  # about one to a pixel; more only makes the file larger
_IN_VIEW = 2.5  # a limit further away than this many times what was used would flatten everything else
# Inches.
_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 9.6, 0.95, 1.75, 0.66, 0.5
_MAIN, _ROW, _GAP, _LANE = 3.0, 0.5, 0.16, 0.2
_LABEL_STEP = 0.155
_MOST_MARKS = 40


class Cell(Protocol):
    """What is drawn of a cell: seconds since 1970, seconds, bytes."""

    @property
    def number(self) -> int: ...
    @property
    def started(self) -> float: ...
    @property
    def seconds(self) -> float: ...
    @property
    def peak(self) -> int | None: ...


class Timeline:
    """One picture of memory over time; `figure` is complete once this is made."""

    def __init__(
        self,
        samples: Sequence[Sample],
        events: Iterable[Event],
        cells: Iterable[Cell],
        thresholds: Thresholds | None,
        theme: Theme,
    ) -> None:
        self.theme, self._thresholds = theme, thresholds
        self.samples = thin(samples, _MOST_POINTS, weight=lambda sample: sample.rss)
        self.cells = list(cells)
        self.start = min(samples[0].time, *(cell.started for cell in self.cells), samples[-1].time)
        end = max(self.samples[-1].time, *(cell.started + cell.seconds for cell in self.cells), self.start + 1.0)
        self.span = end - self.start
        self.time_name, self.time_unit = time_unit(self.span)
        self.events = [event for event in events if self.start - 1 <= event.time <= end + 1]
        self._times = [self.x(sample.time) for sample in self.samples]
        if len(self.samples) == 1:  # an area needs two points
            self.samples, self._times = self.samples * 2, [self._times[0], self.x(end)]
        self._columns = _columns(self.samples)
        self._draw()

    def x(self, time: float) -> float:
        """A moment on the time axis."""
        return (time - self.start) / self.time_unit

    # -- layout ----------------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        from matplotlib import rc_context
        from matplotlib.figure import Figure

        self._top = self._highest()
        self.byte_name, self.byte_unit = byte_unit(self._top)
        own_rows = [key for key in OWN_ROWS if any(self._columns[key])]
        lanes = lanes_of(self.events)
        heights = [_MAIN, *([_LANE * len(lanes) + 0.06] if lanes else []), *(_ROW for _ in own_rows)]
        self._height = _TOP + _BOTTOM + sum(heights) + _GAP * (len(heights) - 1)
        # What a user's style or TeX setting says would make this picture fail or unreadable.
        with rc_context({"text.usetex": False, "hatch.linewidth": 0.6, "font.size": 8.5}):
            self.figure: Figure = Figure(figsize=(_WIDTH, self._height), facecolor=self.theme.background)
            axes = self._axes(heights)
            self._main(axes[0])
            if lanes:
                draw_events(axes[1], self, lanes)
            for axis, key in zip(axes[-len(own_rows) :], own_rows, strict=False):
                self._own_row(axis, key)
            axes[-1].set_xlabel(f"{self.time_name} from the start", color=self.theme.muted)
            axes[-1].tick_params(labelbottom=True, bottom=True)

    def _axes(self, heights: Sequence[float]) -> list[Axes]:
        width = (_WIDTH - _LEFT - _RIGHT) / _WIDTH
        top, made = self._height - _TOP, []
        for height in heights:
            box = (_LEFT / _WIDTH, (top - height) / self._height, width, height / self._height)
            made.append(self._styled(self.figure.add_axes(box)))
            top -= height + _GAP
        return made

    def _styled(self, axes: Axes) -> Axes:
        theme = self.theme
        axes.set_facecolor("none")
        axes.set_xlim(0, self.span / self.time_unit)
        axes.margins(x=0)
        axes.grid(axis="y", color=theme.grid, linewidth=0.6)
        axes.set_axisbelow(True)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(theme.grid)
        axes.tick_params(colors=theme.muted, labelbottom=False, bottom=False, length=3)
        return axes

    # -- the stacked tiers -----------------------------------------------------------------------------------------

    def _highest(self) -> float:
        """Where the axis ends: above what was used, and above the limit where that is not out of all proportion."""
        stacks = [sum(filter(None, (self._columns[key][i] for key in STACKED))) for i in range(len(self._times))]
        top = max(max(stacks), *(cell.peak or 0 for cell in self.cells), 1)
        used = max(sample.used for sample in self.samples)
        top = max(top, used if used <= _IN_VIEW * top else 0)
        limits = [sample.limit for sample in self.samples if sample.limit <= _IN_VIEW * top]
        return 1.06 * max(top * 1.06, *limits, 1)

    def _main(self, axes: Axes) -> None:
        scale = self.byte_unit
        axes.set_ylim(0, self._top / scale)
        axes.set_ylabel(self.byte_name, color=self.theme.muted)
        levels = self._levels(axes)
        keys = [key for key in STACKED if any(self._columns[key])]
        areas = axes.stackplot(self._times, *([v / scale for v in self._columns[key]] for key in keys), zorder=2)
        for key, area in zip(keys, areas, strict=True):
            self._paint(area, key)
        self._cell_marks(axes)
        notes, handles = self._lines(axes)
        self._notes(axes, notes)
        labels = [STACKED[key].label for key in keys]
        handles += levels
        self._legend([*areas, *handles], [*labels, *(str(handle.get_label()) for handle in handles)])

    def _levels(self, axes: Axes) -> list[Any]:
        drawn = {}
        for name, begin, end in level_spans(self.events, self.start + self.span):
            colour = EMERGENCY if name == "emergency" else WARNING
            drawn[name] = axes.axvspan(
                self.x(begin), self.x(end), color=colour, alpha=0.16, linewidth=0, zorder=0.5, label=f"level {name}"
            )
        return list(drawn.values())

    def _paint(self, area: Any, key: str) -> None:
        area.set_facecolor(self.theme.tier(key))
        area.set_linewidth(0)
        area.set_alpha(self.theme.alpha(key))
        if look.TIERS[key].hatch:
            area.set_hatch(look.TIERS[key].hatch)
            area.set_edgecolor(self.theme.background)

    def _lines(self, axes: Axes) -> tuple[list[tuple[float, str]], list[Any]]:
        """The limit and its shares, and what is in use of it; those that lie above the picture only as notes."""
        theme, last = self.theme, self.samples[-1]
        lines = [("limit", 1.0, theme.text, "-", 1.4)]
        if self._thresholds is not None:
            lines.append(("emergency", self._thresholds.emergency, EMERGENCY, "--", 1.2))
            lines.append(("warning", self._thresholds.warning, WARNING, "--", 1.2))
        notes = []
        for name, share, colour, style, width in lines:
            values = [sample.limit * share for sample in self.samples]
            axes.plot(*self._along(values), color=colour, ls=style, lw=width, zorder=4)
            notes.append((last.limit * share, f"{name} {format_bytes(last.limit * share)}"))
        label = f"in use of the limit ({last.binding})"
        used = [sample.used for sample in self.samples]
        (line,) = axes.plot(*self._along(used), color=theme.text, ls=":", lw=1.3, zorder=4, label=label)
        if last.used > self._top:
            notes.append((last.used, f"in use {format_bytes(last.used)}"))
        in_view = any(sample.used <= self._top for sample in self.samples)
        return notes, [*([line] if in_view else []), *self._peaks(axes)]

    def _along(self, values: Sequence[float]) -> tuple[list[float], list[float]]:
        """A line through all samples, broken where another limit began to count."""
        xs, ys = [], []
        previous = self.samples[0]
        for x, sample, value in zip(self._times, self.samples, values, strict=True):
            if (sample.limit, sample.binding) != (previous.limit, previous.binding):
                xs.append(x)
                ys.append(math.nan)
            xs.append(x)
            ys.append(value / self.byte_unit)
            previous = sample
        return xs, ys

    def _peaks(self, axes: Axes) -> list[Any]:
        """The exact peak of each cell, which readings between may have missed."""
        known = [cell for cell in self.cells if cell.peak]
        if not known:
            return []
        least = self.span / self.time_unit / 150  # a cell of a millisecond is still seen
        begins = [self.x(cell.started) for cell in known]
        ends = [max(begin + least, self.x(c.started + c.seconds)) for begin, c in zip(begins, known, strict=True)]
        heights = [(cell.peak or 0) / self.byte_unit for cell in known]
        return [
            axes.hlines(heights, begins, ends, color=self.theme.text, linewidth=2.0, zorder=5, label="peak in a cell")
        ]

    def _cell_marks(self, axes: Axes) -> None:
        numbered = self._with_room()
        for cell in self.cells if len(self.cells) <= _MOST_MARKS else numbered:
            axes.axvline(self.x(cell.started), color=self.theme.muted, linewidth=0.5, alpha=0.55, zorder=3)
        for cell in numbered:
            self._above(axes, str(cell.number), self.x(cell.started), "data", 1, "left")
        if self.cells:
            self._above(axes, "cell", 0, "axes fraction", -4, "right")

    def _above(self, axes: Axes, text: str, x: float, of: str, shift: int, align: str) -> None:
        axes.annotate(
            text, (x, 1.0), (shift, 2), xycoords=(of, "axes fraction"), textcoords="offset points", ha=align,
            color=self.theme.muted, fontsize=7, annotation_clip=False,
        )  # fmt: skip

    def _with_room(self) -> list[Cell]:
        """Cells whose numbers do not touch; of those too near to each other the one that ran longest."""
        inches = (_WIDTH - _LEFT - _RIGHT) / self.span
        taken: list[tuple[float, float]] = []
        chosen = []
        for cell in sorted(self.cells, key=lambda cell: -cell.seconds):
            begin = (cell.started - self.start) * inches
            end = begin + 0.07 + 0.07 * len(str(cell.number))
            if all(end < other_begin or begin > other_end for other_begin, other_end in taken):
                taken.append((begin, end))
                chosen.append(cell)
        return sorted(chosen, key=lambda cell: cell.started)

    def _notes(self, axes: Axes, notes: Sequence[tuple[float, str]]) -> None:
        """Values of the lines at the right edge, moved apart where they would touch; above: what is off the picture."""
        place = 1.0
        for value, text in sorted(notes, reverse=True):
            above = value > self._top
            place = min(place, value / self._top)
            axes.text(
                1.025, place, f"↑ {text}" if above else text, transform=axes.transAxes, color=self.theme.text,
                fontsize=8, va="center", parse_math=False,
            )  # fmt: skip
            place -= _LABEL_STEP / _MAIN

    def _legend(self, handles: Sequence[Any], labels: Sequence[str]) -> None:
        self.figure.legend(
            handles, labels, loc="upper left", bbox_to_anchor=(_LEFT / _WIDTH, 1 - 0.04 / self._height), ncol=3,
            frameon=False, fontsize=8, labelcolor=self.theme.text, borderaxespad=0, borderpad=0, handlelength=1.8,
            columnspacing=1.6, labelspacing=0.3,
        )  # fmt: skip

    # -- tiers with a row of their own -----------------------------------------------------------------------------

    def _own_row(self, axes: Axes, key: str) -> None:
        most = max(self._columns[key])
        name, scale = byte_unit(most)
        axes.set_ylim(0, most * 1.15 / scale)
        axes.locator_params(axis="y", nbins=2)
        area = axes.fill_between(self._times, [v / scale for v in self._columns[key]], step=None)
        self._paint(area, key)
        axes.set_ylabel(name, color=self.theme.muted)
        last = self._columns[key][-1]
        text = f"{OWN_ROWS[key].label}\nnow {format_bytes(last)}\nmost {format_bytes(most)}"
        axes.text(1.025, 0.5, text, transform=axes.transAxes, color=self.theme.text, fontsize=8, va="center")


def _columns(samples: Sequence[Sample]) -> dict[str, list[int]]:
    """Bytes by tier; 0 where a platform cannot tell, which is then not drawn."""
    found = [by_tier(sample) for sample in samples]
    return {key: [row[key] or 0 for row in found] for key in look.TIERS}


def draw(
    samples: Sequence[Sample],
    events: Iterable[Event],
    cells: Iterable[Cell],
    thresholds: Thresholds | None,
    theme: ThemeName,
) -> Figure:
    """The picture of some samples; without any, one that says so."""
    if samples:
        return Timeline(samples, events, cells, thresholds, THEMES[theme]).figure
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, 1.2), facecolor=THEMES[theme].background)
    figure.text(0.5, 0.5, "no readings yet", ha="center", va="center", color=THEMES[theme].muted)
    return figure
