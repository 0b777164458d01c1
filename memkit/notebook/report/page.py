"""The report as one HTML file that needs nothing else: no network, no script, no font."""

from __future__ import annotations

import base64
import functools
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import memkit
from memkit.lifecycle.events import Event
from memkit.memory.sample import Sample
from memkit.notebook.look import TIERS
from memkit.notebook.plots import timeline
from memkit.notebook.report.body import anchor, body, highlighting
from memkit.notebook.report.result import CellRun, ReportResult
from memkit.notebook.report.summary import Summary
from memkit.notebook.series import by_tier
from memkit.units import format_bytes, format_seconds, format_share

if TYPE_CHECKING:
    from jinja2 import Environment

    from memkit.notebook.look import ThemeName


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table of cells, as text, and the width of its bars in percent."""

    cell: CellRun
    link: str
    peak_bar: float
    delta_bar: float
    seconds_bar: float
    largest: bool
    state: str


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the bar at the head, in percent of the limit."""

    key: str
    label: str
    bytes: int
    percent: float


def page(result: ReportResult, notebook: Any) -> str:
    """The whole page; draws with matplotlib, so for the main thread."""
    summary, rendered = Summary.of(result), body(notebook, result.source.resolve().parent)
    template = _environment().get_template("page.html.j2")
    text: str = template.render(
        result=result,
        summary=summary,
        title=_title(notebook) or result.source.stem,
        version=memkit.__version__,
        tiers=TIERS,
        parts=parts(summary.last) if summary.last else (),
        thresholds=result.trace.thresholds,
        figures=figures(result),
        alt=description(result, summary),
        rows=rows(result.cells),
        events=[event for event in result.trace.events if event.kind != "level" or event.type],
        not_run=sum(not cell.ran for cell in result.cells),
        body=rendered,
        highlighting=highlighting(),
        begins_at=result.trace.samples[0].time if result.trace.samples else result.started,
    )
    return text


def figures(result: ReportResult) -> dict[ThemeName, str]:
    """The timeline for light and dark pages as SVG in base64; empty without readings."""
    if not result.trace.samples:
        return {}
    return {"light": _figure(result, "light"), "dark": _figure(result, "dark")}


def _figure(result: ReportResult, theme: ThemeName) -> str:
    cells = [cell for cell in result.cells if cell.ran]
    trace, out = result.trace, io.BytesIO()
    figure = timeline(trace.samples, events=trace.events, cells=cells, thresholds=trace.thresholds, theme=theme)
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    return base64.b64encode(out.getvalue()).decode()


def description(result: ReportResult, summary: Summary) -> str:
    """The timeline in words."""
    if summary.last is None or summary.most is None:
        return "No readings were taken."
    cells = sum(cell.ran for cell in result.cells)
    text = f"Memory by tier over {format_seconds(result.seconds)} and {cells} cells. "
    text += f"At most {format_bytes(summary.most.used)} of {format_bytes(summary.most.limit)} were in use "
    text += f"({format_share(summary.most.share)}); the highest level was {summary.level}. "
    return text + f"At the end the process holds {format_bytes(summary.last.rss)}."


def parts(sample: Sample) -> tuple[Part, ...]:
    """What of the limit is in use, by tier; what others on the machine or in the group use comes last."""
    own = by_tier(sample)
    found = [
        Part(key, TIERS[key].label, own[key] or 0, 100 * (own[key] or 0) / sample.limit)
        for key in ("tracked", "untracked", "compressed", "file_backed")
    ]
    others = max(0, sample.used - sum(part.bytes for part in found if part.key != "file_backed"))
    return (*found, Part("others", "others", others, 100 * others / sample.limit))


def rows(cells: Sequence[CellRun]) -> list[Row]:
    """The table of cells; the one that has grown most is marked."""
    most_peak = max((cell.peak or 0 for cell in cells), default=0) or 1
    most_delta = max((abs(cell.delta or 0) for cell in cells), default=0) or 1
    most_seconds = max((cell.seconds for cell in cells), default=0.0) or 1.0
    grown = max((cell.delta or 0 for cell in cells), default=0)
    return [
        Row(
            cell,
            f"#{anchor(cell.index)}",
            100 * (cell.peak or 0) / most_peak,
            100 * abs(cell.delta or 0) / most_delta,
            100 * cell.seconds / most_seconds,
            largest=grown > 0 and cell.delta == grown,
            state=_state(cell),
        )
        for cell in cells
    ]


def _state(cell: CellRun) -> str:
    """What went wrong with a cell; a cell that is done although it raised is tagged to do so."""
    if not cell.error:
        return "" if cell.state == "done" else cell.state
    return f"{cell.error} ({'expected' if cell.state == 'done' else cell.state})"


def _title(notebook: Any) -> str:
    """The first heading of a notebook."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for line in cell.source.splitlines():
                if line.startswith("# "):
                    return str(line).strip("# ").strip()
    return ""


# -- the template ------------------------------------------------------------------------------------------------------


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("memkit.notebook.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        bytes=format_bytes,
        signed=lambda size: format_bytes(size, signed=True),
        share=format_share,
        clock=lambda at: time.strftime("%H:%M:%S", time.localtime(at)),
        date=lambda at: time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)),
        iso=lambda at: time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(at)),
        since=lambda event, start: f"{event.time - start:+.1f} s",
        what=_what,
    )
    environment.globals["css"] = resources.files("memkit.notebook.report").joinpath("page.css").read_text("utf-8")
    return environment


def _what(event: Event) -> str:
    return f"level {event.type}" if event.kind == "level" else event.kind
