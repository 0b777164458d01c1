"""What records, answers, the ranking and the badge say."""

from __future__ import annotations

import json

import pytest

from memkit.notebook.accounting import badge
from memkit.notebook.accounting.answer import CellAnswer, duration
from memkit.notebook.accounting.ranking import Ranking
from memkit.notebook.growth import Grown
from memkit.units import MIB

from .conftest import made


def test_what_a_cell_needed_and_gave_back_is_measured_in_rss_as_its_peak_is() -> None:
    record = made()
    assert (record.needed, record.delta, record.freed) == (200 * MIB, 50 * MIB, 150 * MIB)
    assert record.mapped == 0
    assert made(rss_after=180 * MIB).mapped == 30 * MIB


def test_a_record_without_peak_has_no_differences_but_its_delta() -> None:
    record = made(peak=None, method="not available")
    assert (record.needed, record.freed, record.delta) == (None, None, 50 * MIB)
    assert "no peak" in record.note
    assert "unknown" in str(CellAnswer(record))
    assert "unknown" in badge.text(record)


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({}, ""),
        ({"overlapped": True}, "peak of several cells that ran at once"),
        ({"method": "sampled"}, "peak sampled"),
        ({"ran": False}, "not run"),
        ({"vram_peak": 5, "vram_exact": False}, "VRAM at least"),
    ],
)
def test_the_note_says_what_restricts_the_figures(fields: dict[str, object], note: str) -> None:
    assert made(**fields).note == note


def test_an_answer_says_peak_delta_freed_time_collections_and_the_biggest() -> None:
    grown = (Grown("rows", "list", 40 * MIB, True), Grown("part", "dict", 5 * MIB, False, "load()"))
    answer = CellAnswer(made(), 512 * MIB, grown)
    first, second, head, *rows = str(answer).splitlines()
    assert first == ("cell [7]: peak +200.0 MiB, delta +50.0 MiB, freed 150.0 MiB, 1.50 s of a budget of 512.0 MiB")
    assert second == "garbage collection 250.0 ms in 3 runs"
    assert head.split() == ["name", "type", "size"]
    assert [row.split() for row in rows] == [
        ["rows", "list", "40.0", "MiB", "new"],
        ["part", "in", "load()", "dict", "5.0", "MiB", "grown"],
    ]
    assert (answer.peak, answer.delta, answer.freed, answer.seconds) == (200 * MIB, 50 * MIB, 150 * MIB, 1.5)
    document = json.loads(answer.to_json())
    assert document["cell"]["needed"] == 200 * MIB
    assert document["biggest"][1]["where"] == "load()"
    assert "<table" in answer._repr_html_()


def test_mapped_files_errors_and_notes_are_said_only_where_there_are_any() -> None:
    assert len(str(CellAnswer(made(gc_runs=0))).splitlines()) == 1
    more = str(CellAnswer(made(rss_after=180 * MIB, error="KeyError", overlapped=True, vram_peak=MIB)))
    for part in ("files mapped +30.0 MiB", "ended by KeyError", "several cells", "VRAM peak 1.0 MiB"):
        assert part in more


def test_durations_are_short() -> None:
    assert [duration(s) for s in (0.31, 59.99, 440.0)] == ["0.31 s", "59.99 s", "7:20"]


CELLS = (
    made(number=1, execution_count=1, peak=120 * MIB, seconds=9.0, source="# read\ndf = read()"),
    made(number=2, execution_count=2, after=300 * MIB, peak=301 * MIB, source="%%memkit\nbig = df * 2"),
    made(number=3, execution_count=3, peak=None, seconds=3.0),
    made(number=4, depth=1, source="nested"),
    made(number=5, in_history=False, source="the front end's"),
    made(number=6, ran=False, source="1 +"),
)


@pytest.mark.parametrize(("order", "ranked"), [("peak", [2, 1, 3]), ("delta", [2, 1, 3]), ("time", [1, 3, 2])])
def test_the_notebooks_own_cells_are_ranked_and_no_others(order: str, ranked: list[int]) -> None:
    assert [cell.number for cell in Ranking.of(CELLS, order).cells] == ranked


def test_the_table_shows_each_with_its_first_line() -> None:
    text = str(Ranking.of(CELLS, count=2))
    assert text.startswith("2 cells by peak, 1 more not shown; peak above the beginning, from: kernel high-water mark")
    assert "big = df * 2" in text
    assert "note" not in text
    assert "no peak here" in str(Ranking.of(CELLS))


def test_an_empty_ranking_says_so() -> None:
    assert str(Ranking.of([])) == "no cell has been run since memkit was loaded"
