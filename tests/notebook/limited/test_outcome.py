"""What is said about a run in a box: its death, its cells, its figures. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from memkit.notebook.limited.choice import Choice, Refused
from memkit.notebook.limited.closing import closing, figures, fit_closing, opening, step_line
from memkit.notebook.limited.fit import Bounds, Step, verdict
from memkit.notebook.limited.outcome import Outcome, annotate, told
from memkit.notebook.limited.outside import Outside
from memkit.notebook.limited.rlimit import Rlimit
from memkit.notebook.report.kernel import ended
from memkit.notebook.report.result import CellRun, Death, Progress
from memkit.units import GIB, MIB
from tests.notebook.test_report import cell, result

KILLED = f"the kernel {ended(-9)}"


def outcome(*cells: CellRun, death: str | None = None, **fields: Any) -> Outcome:
    where = next((c for c in cells if c.state == "died"), None)
    end = Death(where, death, 0, None, None, (), 0, "what it\nsaid last") if death else None
    known = {"size": GIB, "method": "cgroup v1", "peak": 512 * MIB, "kills": 0, "measure": "all of it"}
    return Outcome(result(*cells, death=end, output=None), **{**known, **fields})


@pytest.mark.parametrize(
    ("cause", "kills", "words"),
    [
        (KILLED, 1, "SIGKILL (signal 9): it and what it had started needed more than 1.00 GiB"),
        (KILLED, 0, "SIGKILL (signal 9), by somebody and not for want of memory"),
        (KILLED, None, "SIGKILL (signal 9), which the system sends when memory runs out"),
        (f"the kernel {ended(-11)}", 0, "SIGSEGV (signal 11)"),
        (f"the kernel {ended(1)}", 2, "exit code 1; before that the system had killed a process at the limit 2 times"),
    ],
)
def test_a_death_is_told_with_what_the_box_has_counted(cause: str, kills: int | None, words: str) -> None:
    made = told(Death(None, cause, 0, None, None, (), 0, ""), GIB, kills)
    assert made is not None
    assert words in made.cause
    assert told(None, GIB, kills) is None


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (outcome(cell(1)), ""),
        (outcome(cell(1), cell(2, "failed")), "cell 2: failed"),
        (outcome(CellRun(0, 1, "x", "failed", error="MemoryGuardError")), "cell 1: MemoryGuardError"),
        (outcome(cell(1, "timed out")), "cell 1: timed out"),
        (outcome(cell(1, "died"), death=KILLED, kills=1), "cell 1: out of memory, killed by the system"),
        (outcome(cell(1, "died"), death=KILLED), "cell 1: the kernel died"),
        (outcome(cell(1, "not run"), death="it did not start"), "it did not start"),
    ],
)
def test_a_failure_is_the_cell_and_how(made: Outcome, words: str) -> None:
    assert made.failure() == words
    assert made.completed == (not words)


def test_a_kernel_that_never_came_to_a_cell_has_not_begun() -> None:
    assert not outcome(cell(1, "not run"), death="it did not start").began
    assert outcome(cell(1), cell(2, "died"), death=KILLED).began
    assert outcome(cell(1), death=KILLED).began, "it died after the last cell"
    assert outcome().began


def test_the_first_line_says_how_much_by_what_and_the_rest_why_not_by_better() -> None:
    choice = Choice(Rlimit(), (Refused("cgroup v2", "no such thing"), Refused("systemd-run", "no bus")))
    assert opening(choice, 4 * GIB, "auto") == [
        "memory: 4.00 GiB, held by rlimit",
        "  not cgroup v2: no such thing",
        "  not systemd-run: no bus",
    ]
    assert opening(Choice(Rlimit()), None, "rlimit") == [
        "memory: the smallest that will do, held by rlimit, as asked for"
    ]


def test_figures_rank_cells_by_peak_and_name_those_that_were_refused() -> None:
    runs = [
        cell(1, peak=100 * MIB),
        cell(2, "failed", peak=900 * MIB),
        CellRun(2, 3, "x", "failed", error="MemoryGuardError"),
        cell(4, "not run"),
    ]
    made = outcome(*runs, kills=2, peaks={3: 950 * MIB})
    assert dict(figures(made)) == {
        "limit": "1.00 GiB by cgroup v1; the system killed 2 processes at it",
        "peak": "512.0 MiB (50.0 %), all of it",
        "cells": "highest peak in 3 (950.0 MiB), 2 (900.0 MiB), 1 (100.0 MiB)",
        "refused": "cell 3 (MemoryGuardError)",
    }
    assert dict(figures(outcome(cell(1, "not run"), peak=None))) == {
        "limit": "1.00 GiB by cgroup v1",
        "peak": "not known",
        "cells": "no peak is known",
    }


def test_the_closing_lines_say_where_the_files_are_and_what_a_kernel_said_that_never_began() -> None:
    lines = closing(outcome(cell(1, "not run"), death="it did not start"))
    assert lines[1:3] == ["the kernel died: it did not start", "it said: said last"]
    assert f"notebook: {Path('nb.executed.ipynb').resolve()}" in lines
    assert not any(line.startswith("report:") for line in lines)


def test_each_try_is_one_line() -> None:
    assert " ".join(step_line(3, Step(GIB, peak=MIB), 1.25).split()) == "3 1.00 GiB 1.2 s peak 1.0 MiB completed"
    assert step_line(3, Step(GIB, "cell 7: MemoryError"), 1).endswith("failed in cell 7: MemoryError")
    fit = verdict([Step(GIB)], Bounds(MIB, GIB))
    assert fit_closing(fit, outcome(cell(1)))[-1].endswith("nb.executed.ipynb (run at 1.00 GiB)")


def test_the_notebook_file_tells_what_its_cells_took() -> None:
    notebook = new_notebook(cells=[new_code_cell("a"), new_code_cell("b")])
    annotate(notebook, outcome(cell(1, peak=7 * MIB), cell(2, "not run")))
    figures_of = notebook.cells[0].metadata["memkit"]
    assert (figures_of["peak"], figures_of["state"], figures_of["number"]) == (7 * MIB, "done", 1)
    assert "source" not in figures_of
    assert "memkit" not in notebook.cells[1].metadata
    assert notebook.metadata["memkit_run"]["memory"] == GIB


def test_a_peak_is_read_from_outside_for_each_cell_and_only_where_the_kernel_told_none(tmp_path: Path) -> None:
    folder = tmp_path / "77"
    folder.mkdir()
    (folder / "clear_refs").write_text("")
    outside = Outside(resets=True, proc=str(tmp_path))
    outside.started(77)

    def follow(number: int, mark: int, running: bool = True, peak: int | None = None) -> int | None:
        (folder / "status").write_text(f"VmHWM:\t{mark} kB\n")
        return outside.follow(Progress(cell(number, "not run"), 2, running, 0.0, peak, None)).peak

    assert follow(1, 10) == 10 * 1024
    assert (folder / "clear_refs").read_text() == "5"
    assert follow(1, 30, running=False) == 30 * 1024
    assert follow(2, 5) == 5 * 1024
    assert follow(2, 5, peak=99) == 99
    (folder / "status").unlink()  # the kernel has died
    assert outside.follow(Progress(cell(2, "died"), 2, False, 0.0, None, None)).peak == 5 * 1024
    assert outside.peaks == {1: 30 * 1024, 2: 5 * 1024}
