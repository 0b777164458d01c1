"""Pictures of memory: what is drawn, from what, and that any sensible input can be drawn."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memkit import api
from memkit.errors import MemkitError
from memkit.lifecycle.events import Event
from memkit.memory.accelerators import Device
from memkit.memory.pressure import Thresholds
from memkit.memory.sample import Sample
from memkit.notebook import plots
from memkit.notebook.eventstrip import lanes_of, level_spans
from memkit.notebook.look import EVENTS, LANES, TIERS
from memkit.notebook.plots import Plot, plot, timeline
from memkit.notebook.series import by_tier, byte_unit, rows, sparkline, thin, time_unit
from memkit.units import GIB, MIB
from memkit.wiring import Session

T0 = 1_700_000_000.0


@dataclass
class Cell:
    number: int
    started: float
    seconds: float
    peak: int | None


def sample(at: float = 0.0, own: int = 300 * MIB, limit: int = 1 * GIB, **fields: Any) -> Sample:
    """A reading of a process that has `own` bytes of its own and 50 MiB of mapped files."""
    known = {
        "time": T0 + at, "limit": limit, "available": limit - own, "binding": "user", "rss": own + 50 * MIB, "vms": 0,
        "machine_total": 8 * GIB, "machine_available": 4 * GIB, "anonymous": own, "file_backed": 50 * MIB, "swap": 0,
    }  # fmt: skip
    return Sample(**{**known, **fields})


def texts(figure: Any) -> str:
    """Everything written in a figure."""
    legend = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return "\n".join([*legend, *(text.get_text() for axes in figure.axes for text in axes.texts)])


def drawn(figure: Any) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=40)
    return out.getvalue()


# -- series --------------------------------------------------------------------------------------------------------


@given(own=st.integers(0, GIB), tracked=st.integers(0, 2 * GIB), compressed=st.integers(0, GIB))
def test_tiers_are_disjoint_and_together_what_the_process_holds(own: int, tracked: int, compressed: int) -> None:
    """Nothing is counted twice, also where more is tracked than the process holds."""
    found = by_tier(sample(own=own, tracked=tracked, compressed=min(compressed, own)))
    assert found["tracked"] + found["untracked"] + found["compressed"] == own  # type: ignore[operator]
    assert all(size is None or size >= 0 for size in found.values())


@given(values=st.lists(st.floats(0, 1e12), min_size=3, max_size=300), most=st.integers(3, 50))
def test_thinning_keeps_order_both_ends_and_the_peak(values: list[float], most: int) -> None:
    items = list(enumerate(values))
    kept = thin(items, most, weight=lambda item: item[1])
    assert len(kept) <= most
    assert kept == sorted(kept, key=lambda item: item[0])
    assert (kept[0], kept[-1]) == (items[0], items[-1])
    assert max(value for _, value in kept) == max(values)


def test_units_fit_what_they_measure() -> None:
    assert [byte_unit(size)[0] for size in (5000, 3 * MIB, GIB)] == ["KiB", "MiB", "GiB"]
    assert [time_unit(seconds)[0] for seconds in (119, 120, 7200)] == ["seconds", "minutes", "hours"]


def test_a_sparkline_rises_from_the_lowest_to_the_highest_block() -> None:
    assert sparkline([0, 50, None, 100]) == "▁▄ █"
    assert sparkline([]) == ""


def test_rows_carry_bytes_by_tier_and_seconds_from_the_first() -> None:
    table = rows([sample(0, tracked=MIB), sample(2.5)])
    assert [row["seconds"] for row in table] == [0, 2.5]
    assert table[0]["tracked"] == MIB
    assert set(TIERS) <= set(table[0])


# -- the timeline --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 2000])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_any_number_of_samples_can_be_drawn(count: int, theme: Any) -> None:
    samples = [sample(at * 0.5, own=(100 + at % 90) * MIB) for at in range(count)]
    assert drawn(timeline(samples, thresholds=Thresholds(), theme=theme)).startswith(b"\x89PNG")


def test_limit_and_thresholds_are_labelled_with_their_values() -> None:
    written = texts(timeline([sample(0), sample(9)], thresholds=Thresholds()))
    assert "limit 1.00 GiB" in written
    assert "warning 768.0 MiB" in written
    assert "emergency 921.6 MiB" in written


def test_a_limit_far_above_what_is_used_is_named_and_does_not_flatten_the_picture() -> None:
    figure = timeline([sample(0, limit=64 * GIB), sample(9, limit=64 * GIB)], thresholds=Thresholds())
    assert "↑ limit 64.00 GiB" in texts(figure)
    assert figure.axes[0].get_ylim()[1] * MIB < GIB


def test_a_line_is_broken_where_another_limit_begins_to_count() -> None:
    figure = timeline([sample(0, limit=2 * GIB), sample(5), sample(9)])
    (limit, *_) = figure.axes[0].get_lines()
    values = [float(value) for value in limit.get_ydata()]
    assert sum(value != value for value in values) == 1


def test_disk_swap_and_vram_have_rows_of_their_own_only_where_there_is_any() -> None:
    device = Device("card", 0, GIB, GIB, 100 * MIB)
    plain = timeline([sample(0), sample(1)])
    full = timeline([sample(0), sample(1, disk=MIB, swap=MIB, devices=(device,))])
    assert len(plain.axes) == 1
    assert len(full.axes) == 4
    assert all(label in texts(full) for label in ("VRAM", "swap", "disk (spilled)"))


def test_events_are_drawn_in_lanes_with_names_and_where_to() -> None:
    events = [
        Event(T0 + 1, "expired", "a", "t", 1, ""),
        Event(T0 + 2, "spilled", "$df_{x}$", "t", 1, ""),  # no formula
        Event(T0 + 6, "restored", "b", "t", 1, ""),
        Event(T0 + 7, "registered", "b", "t", 1, ""),  # not shown
    ]
    figure = timeline([sample(0), sample(9)], events=events)
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == ["expired", "demoted", "restored"]
    assert "$df_{x}$ → disk" in texts(figure)
    assert drawn(figure)


def test_every_kind_of_event_has_a_lane_that_is_shown() -> None:
    assert {look.lane for look in EVENTS.values()} == set(LANES)
    assert lanes_of([Event(T0, "level", "", "warning", 0, "")]) == []


def test_levels_are_spans_from_when_they_were_reached_until_they_were_left() -> None:
    levels = [(1, "warning"), (2, "emergency"), (3, "emergency"), (4, "normal"), (6, "warning")]
    events = [Event(float(at), "level", "", level, 0, "") for at, level in levels]
    assert level_spans(events, 9.0) == [("warning", 1.0, 2.0), ("emergency", 2.0, 4.0), ("warning", 6.0, 9.0)]


def test_cell_numbers_do_not_touch_and_the_longest_cells_keep_theirs() -> None:
    cells = [Cell(n, T0 + n * 0.01, 0.01, None) for n in range(1, 50)] + [Cell(50, T0 + 0.52, 99.0, 500 * MIB)]
    figure = timeline([sample(0), sample(99)], cells=cells)
    numbers = [text.get_text() for text in figure.axes[0].texts if text.get_text().isdigit()]
    assert "50" in numbers
    assert len(numbers) < 5


def test_the_peak_of_a_cell_is_in_the_picture_although_no_sample_saw_it() -> None:
    figure = timeline([sample(0), sample(9)], cells=[Cell(1, T0 + 1, 3.0, 5 * GIB)])
    assert figure.axes[0].get_ylim()[1] > 5
    assert "peak in a cell" in texts(figure)


def test_drawing_needs_no_pyplot_and_importing_needs_no_matplotlib() -> None:
    """pyplot keeps every figure and mixes up those of the user."""
    code = (
        "import sys, memkit.notebook.plots as p; assert 'matplotlib' not in sys.modules\n"
        "p.timeline([]); assert 'matplotlib.pyplot' not in sys.modules; assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- plot() --------------------------------------------------------------------------------------------------------


def test_plot_shows_the_default_session_as_a_sharp_png_and_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session()
    try:
        monkeypatch.setattr(api._Default, "session", session)
        session.monitor.sample_now()
        picture = plot()
        data, size = picture._repr_png_()
        assert data.startswith(b"\x89PNG")
        assert int.from_bytes(data[16:20], "big") == pytest.approx(2 * size["width"], abs=2)
        assert picture._repr_html_() is None  # a notebook would show it instead of the picture
        assert "in use" in str(picture)
        assert "RAM, not tracked" in str(picture)
        assert picture.figure is picture.figure
    finally:
        session.close()


def test_an_unknown_plot_is_an_error_that_names_what_there_is() -> None:
    with pytest.raises(MemkitError, match=r"no plot 'tier' - did you mean 'tiers'\?; there is: tiers"):
        plot("tier")


def test_data_is_a_frame_where_pandas_is_installed_else_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = pytest.importorskip("pandas")
    frame = Plot([sample(0), sample(1)]).data
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["seconds"]) == [0, 1]
    monkeypatch.delitem(sys.modules, "pandas")
    monkeypatch.setattr(plots.importlib.util, "find_spec", lambda name: None)
    assert Plot([sample(0)]).data[0]["seconds"] == 0


def test_a_plot_without_readings_says_so() -> None:
    assert "no readings yet" in str(Plot([]))
    assert Plot([])._repr_png_()[0].startswith(b"\x89PNG")
