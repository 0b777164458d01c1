"""What happened to resources, in lanes below a timeline; and when which level held."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from memkit.lifecycle.events import Event
from memkit.notebook.look import EVENTS, LANES, WHERE_TO, Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAME_WIDTH = 0.064  # inches of one letter at 7 points
_LONGEST = 24


class Time(Protocol):
    """The time axis of a picture."""

    theme: Theme
    events: list[Event]
    span: float
    time_unit: float

    def x(self, time: float) -> float: ...


def lanes_of(events: Iterable[Event]) -> list[str]:
    """The lanes that have something in them, from top to bottom."""
    found = {EVENTS[event.kind].lane for event in events if event.kind in EVENTS}
    return [lane for lane in LANES if lane in found]


def level_spans(events: Iterable[Event], end: float) -> list[tuple[str, float, float]]:
    """Each time that memory was not at level normal: level, begin, end in seconds since 1970."""
    spans: list[tuple[str, float, float]] = []
    level, since = "normal", 0.0
    for event in events:
        if event.kind == "level" and event.type != level:
            if level != "normal":
                spans.append((level, since, event.time))
            level, since = event.type, event.time
    return [*spans, (level, since, end)] if level != "normal" else spans


def draw_events(axes: Axes, time: Time, lanes: Sequence[str]) -> None:
    """One lane for each kind of thing that happened; names where there is room."""
    axes.set_ylim(len(lanes) - 0.5, -0.5)
    axes.set_yticks(range(len(lanes)), lanes, color=time.theme.text, fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    for number, lane in enumerate(lanes):
        inside = [event for event in time.events if event.kind in EVENTS and EVENTS[event.kind].lane == lane]
        _markers(axes, time, number, inside)
        _names(axes, time, number, inside)


def _markers(axes: Axes, time: Time, lane: int, events: Sequence[Event]) -> None:
    for kind in {event.kind for event in events}:
        look = EVENTS[kind]
        colour = time.theme.text if look.tier is None else time.theme.tier(look.tier)
        xs = [time.x(event.time) for event in events if event.kind == kind]
        axes.plot(
            xs, [lane] * len(xs), look.marker, color=colour, markersize=5.5, markeredgewidth=0.6,
            markeredgecolor=time.theme.text, clip_on=False, zorder=5,
        )  # fmt: skip


def _names(axes: Axes, time: Time, lane: int, events: Sequence[Event]) -> None:
    width = axes.figure.get_figwidth() * axes.get_position().width  # type: ignore[union-attr]
    inches = width * time.time_unit / time.span
    places = [time.x(event.time) * inches for event in events]
    for event, place, following in zip(events, places, [*places[1:], width + 1.2], strict=True):
        text = event.name if len(event.name) <= _LONGEST else event.name[: _LONGEST - 1] + "…"
        if event.kind in WHERE_TO:
            text += f" → {WHERE_TO[event.kind]}"
        if place + 0.14 + _NAME_WIDTH * len(text) < following:
            axes.annotate(
                text, (time.x(event.time), lane), (6, 0), textcoords="offset points", va="center", fontsize=7,
                color=time.theme.muted, annotation_clip=False, parse_math=False,
            )  # fmt: skip
