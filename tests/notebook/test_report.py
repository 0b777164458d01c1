"""Running a notebook and writing its report, whatever becomes of the kernel."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from memkit.lifecycle.events import Event
from memkit.memory.pressure import Thresholds
from memkit.notebook.report import document, kernel
from memkit.notebook.report.body import body
from memkit.notebook.report.command import Terminal, report_command
from memkit.notebook.report.document import NotebookError
from memkit.notebook.report.offline import offline
from memkit.notebook.report.page import page, parts, rows
from memkit.notebook.report.result import CellRun, Death, Progress, ReportResult
from memkit.notebook.report.runner import run
from memkit.notebook.report.summary import Summary
from memkit.notebook.report.trace import Resident, Trace
from memkit.units import MIB

from .test_plots import T0, sample
from .test_recorder import record

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a notebook of some sources; those that begin with `md:` are text cells."""

    def make(*sources: str, name: str = "nb", **metadata: Any) -> Path:
        cells = [new_markdown_cell(s[3:]) if s.startswith("md:") else new_code_cell(s) for s in sources]
        path = tmp_path / f"{name}.ipynb"
        nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
        return path

    return make


def result(*cells: CellRun, **fields: Any) -> ReportResult:
    """A run as it might have been, of a second and with three readings."""
    samples = [sample(at, own=size * MIB, own_memory=3 * MIB) for at, size in ((0, 100), (1, 700), (2, 300))]
    trace = Trace(True, None, Thresholds(), samples, ["normal"] * 3)
    known = {
        "source": Path("nb.ipynb"), "output": Path("nb.html"), "notebook": Path("nb.executed.ipynb"),
        "kernel": "python3", "started": T0, "seconds": 2.0, "cells": cells, "trace": trace, "death": None,
        "interrupted": False, "notes": (),
    }  # fmt: skip
    return ReportResult(**{**known, **fields})


def cell(number: int, state: Any = "done", seconds: float = 0.1, **fields: Any) -> CellRun:
    made = record(number, f"step {number}", **fields) if state in ("done", "failed") else None
    return CellRun(number - 1, number, f"step {number}", state, T0 + number * 0.1, seconds, made)


class _Structure(HTMLParser):
    """What a page consists of: tags that were left open, and what it would fetch."""

    VOID = frozenset({"meta", "link", "br", "img", "source", "input", "hr", "col", "wbr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "srcset", "href", "data", "poster") and tag != "a":
                self.fetched.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            if name == "href" and tag == "a":
                self.links.append(value or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def structure(html: str) -> _Structure:
    parser = _Structure()
    parser.feed(html)
    return parser


# -- nothing is fetched ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://cdn.example/x.js"></script>',
        "<link rel=stylesheet href=https://cdn.example/x.css>",
        "<img alt='a > b' src='//cdn.example/x.png'>",
        '<IMG SRC = "HTTP://cdn.example/x.png" srcset="http://cdn.example/2x.png 2x">',
        '<iframe src="https://example.org"></iframe>',
        "<style>@import url('https://cdn.example/x.css'); a { color: red }</style>",
        '<div style="background: url(https://cdn.example/x.png)">x</div>',
        '<svg><image xlink:href="https://cdn.example/x.png"/></svg>',
        '<video poster="https://cdn.example/x.png"><source src="https://cdn.example/x.mp4"></video>',
    ],
)
def test_what_an_output_would_fetch_is_taken_out_and_told(html: str) -> None:
    clean, taken = offline(html)
    assert taken
    assert not any(re.match(r"\s*(https?:)?//", value, re.IGNORECASE) for value in structure(clean).fetched)
    assert not re.search(r"(@import|url\().{0,3}(https?:)?//", clean, re.IGNORECASE)


@pytest.mark.parametrize(
    "html",
    [
        '<a href="https://example.org">a link to follow</a>',
        '<img src="data:image/png;base64,//8AAA==">',
        '<p>see https://example.org or src="https://example.org"</p>',
        '<img src="picture.png" alt="https://example.org">',
        "<script>fetch_nothing = 'https://example.org'</script>",
    ],
)
def test_what_fetches_nothing_stays_as_it_is(html: str) -> None:
    assert offline(html) == (html, [])


@given(st.text(alphabet="<>\"'= /:ahimgsrctpx", max_size=80))
def test_any_text_is_handled(text: str) -> None:
    offline(text)


# -- the notebook's own part -------------------------------------------------------------------------------------------


def test_widgets_and_bare_javascript_are_shown_by_their_static_fallback(tmp_path: Path) -> None:
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "IntSlider(value=7)"}
    script = {"application/javascript": "alert(1)"}
    outputs = [new_output("display_data", data=data) for data in (widget, script)]
    html = body(new_notebook(cells=[new_code_cell("x", outputs=outputs)]), tmp_path).html
    assert "IntSlider(value=7)" in html
    assert "alert" not in html
    assert "<script" not in html


def test_pictures_of_text_cells_are_put_in_from_the_notebooks_folder(tmp_path: Path) -> None:
    (tmp_path / "dot.png").write_bytes(b"\x89PNG dot")
    html = body(new_notebook(cells=[new_markdown_cell("![a dot](dot.png)")]), tmp_path).html
    assert "data:image/png;base64," in html


# -- the page ----------------------------------------------------------------------------------------------------------


def test_a_page_is_whole_balanced_and_fetches_nothing() -> None:
    remote = new_markdown_cell("# Title <b>\n![x](https://a.example/b.png) [link](https://a.example)")
    runs = [
        cell(1),
        cell(2, peak=500 * MIB, after=400 * MIB),
        cell(3, "failed", error="ValueError"),
        cell(4, "not run"),
    ]
    made = result(*runs)
    made.trace.events.append(Event(T0 + 1, "spilled", "<df>", "temp_buffers", MIB, "expired & gone"))
    html = page(made, new_notebook(cells=[remote, *(new_code_cell(run.title) for run in runs)]))
    found = structure(html)
    assert (found.wrong, found.open) == ([], [])
    assert all(value.startswith("data:") for value in found.fetched)
    assert not {"script", "link", "iframe"} & set(found.tags)
    assert "@import" not in html
    assert {"header", "main", "footer", "caption", "figure", "details"} <= set(found.tags)
    assert "&lt;df&gt;" in html
    assert "expired &amp; gone" in html


def test_links_of_the_table_lead_to_the_cells() -> None:
    notebook = new_notebook(cells=[new_code_cell("a"), new_markdown_cell("between"), new_code_cell("b")])
    runs = document.cells_to_run(notebook)
    found = structure(page(result(*runs), notebook))
    anchors = [link[1:] for link in found.links if link.startswith("#cell")]
    assert anchors
    assert set(anchors) <= set(found.ids)
    assert len(found.ids) == len(set(found.ids))


def test_the_figure_has_a_description_and_two_themes() -> None:
    html = page(result(cell(1)), new_notebook())
    (image,) = re.findall(r'<img src="data:image/svg[^>]*alt="([^"]*)"', html)
    assert "At most 700.0 MiB of 1.00 GiB were in use" in image
    assert '<source media="(prefers-color-scheme: dark)"' in html


def test_a_death_stands_first_with_cell_cause_level_and_what_was_resident() -> None:
    death = Death(
        cell(2, "died"), "the kernel was killed by SIGKILL (signal 9)", T0 + 3, "warning", sample(2),
        (Resident("df", "temp_buffers", 7 * MIB, "ram", "pinned"),), 5, "Killed <it>",
    )  # fmt: skip
    runs = (cell(1), cell(2, "died"), cell(3, "not run"))
    html = page(result(*runs, death=death), new_notebook(cells=[new_code_cell(c.title) for c in runs]))
    for text in ("The kernel died in cell 2", "SIGKILL", "<strong>warning</strong>", "df", "The 1 largest of 5"):
        assert text in html
    assert "1 cell after that was not run" in html
    assert "Killed &lt;it&gt;" in html
    assert html.index("The kernel died in cell 2") < html.index("What was measured")


def test_without_any_reading_there_is_still_a_page() -> None:
    """A kernel that never started, or one in another language."""
    death = Death(None, "the kernel 'x' did not start", T0, None, None, (), 0, "")
    html = page(result(cell(1, "not run"), trace=Trace(), death=death), new_notebook(cells=[new_code_cell("x")]))
    assert "No readings were taken" in html
    assert "did not start" in html
    assert structure(html).wrong == []


def test_the_bar_at_the_head_never_counts_anything_twice() -> None:
    found = {part.key: part.bytes for part in parts(sample(own=300 * MIB, tracked=100 * MIB, compressed=50 * MIB))}
    assert found["tracked"] + found["untracked"] + found["compressed"] + found["others"] == 300 * MIB


def test_only_the_cell_that_has_grown_most_is_marked() -> None:
    table = rows([cell(1, after=50), cell(2, after=5000), cell(3, before=9000, after=0), cell(4, "not run")])
    assert [row.largest for row in table] == [False, True, False, False]
    assert max(row.delta_bar for row in table) == 100


def test_an_error_that_was_asked_for_is_told_from_one_that_was_not() -> None:
    tagged, failed = CellRun(1, 2, "x", "done", error="NameError"), CellRun(2, 3, "y", "failed", error="KeyError")
    assert [row.state for row in rows([cell(1), tagged, failed, cell(4, "not run")])] == [
        "",
        "NameError (expected)",
        "KeyError (failed)",
        "not run",
    ]


# -- the summary -------------------------------------------------------------------------------------------------------


def test_five_lines_say_what_was_measured() -> None:
    made = result(cell(1, seconds=3.0), cell(2, peak=900 * MIB, after=500 * MIB))
    made.trace.events += [
        Event(T0, "level", "", "warning", 0, ""),
        Event(T0, "spilled", "a", "t", 100 * MIB, ""),
        Event(T0, "compressed", "b", "t", 20 * MIB, ""),
        Event(T0, "restored", "a", "t", 100 * MIB, ""),
    ]
    assert dict(Summary.of(made).lines()) == {
        "limit": "1.00 GiB (user); level reached: warning",
        "peak": "900.0 MiB resident in cell 2; at most 68.4 % of 1.00 GiB in use",
        "moved": "released nothing, demoted 120.0 MiB (2), restored 100.0 MiB (1)",
        "cells": "slowest 1 (3.0 s), biggest 2 (+500.0 MiB)",
        "memkit": "3.0 MiB, 0.00 s of CPU (0.0 % of a core)",
    }


def test_the_peak_belongs_to_the_cell_that_took_the_memory_not_to_those_after_it() -> None:
    """They begin with it resident, and have a few pages more."""
    runs = [cell(1, peak=10 * MIB), cell(2, peak=1000 * MIB), cell(3, peak=1000 * MIB + 4096)]
    found = Summary.of(result(*runs))
    assert found.peak == 1000 * MIB + 4096
    assert found.peak_cell == runs[1]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, 0),
        ({"cells": (cell(1, "failed"),)}, 1),
        ({"cells": (cell(1, "timed out"),)}, 1),
        ({"death": Death(None, "", T0, None, None, (), 0, "")}, 3),
        ({"interrupted": True}, 130),
    ],
)
def test_exit_codes(fields: dict[str, Any], code: int) -> None:
    assert result(**{"cells": (cell(1),), **fields} if "cells" in fields else fields).exit_code == code


@pytest.mark.parametrize(
    ("code", "words"),
    [(-9, "SIGKILL (signal 9)"), (-11, "SIGSEGV (signal 11)"), (1, "exit code 1"), (None, "not known"), (-99, "99")],
)
def test_how_a_process_ended_is_said_in_words(code: int | None, words: str) -> None:
    assert words in kernel.ended(code)


# -- files -------------------------------------------------------------------------------------------------------------


def test_no_notebook_is_ever_overwritten_but_an_earlier_copy_of_ours(write: Write, tmp_path: Path) -> None:
    source, other = write("1", name="nb"), write("2", name="other")
    assert document.copy_for(source, tmp_path / "nb.html").name == "nb.executed.ipynb"
    assert document.copy_for(source, tmp_path / "other.html").name == "other.executed.ipynb"
    assert document.copy_for(source, tmp_path / "new.html").name == "new.ipynb"
    document.save(document.read(source), tmp_path / "new.ipynb", source)
    assert document.copy_for(source, tmp_path / "new.html").name == "new.ipynb"
    write("3", name="other.executed")
    assert document.copy_for(source, tmp_path / "other.html").name == "other.executed-2.ipynb"
    assert "2" in other.read_text()


def test_a_copy_of_ours_that_is_the_source_is_not_overwritten(write: Write, tmp_path: Path) -> None:
    source = tmp_path / "nb.ipynb"
    document.save(new_notebook(), source, source)
    assert document.copy_for(source, tmp_path / "nb.html").name == "nb.executed.ipynb"


def test_stale_outputs_are_not_taken_for_those_of_this_run(tmp_path: Path) -> None:
    path = tmp_path / "nb.ipynb"
    old = new_code_cell("x", outputs=[new_output("stream", text="old")], execution_count=7)
    nbformat.write(new_notebook(cells=[old]), path)
    read = document.read(path)
    assert read.cells[0].outputs == []
    assert read.cells[0].execution_count is None


def test_cells_without_code_and_those_to_skip_are_not_run() -> None:
    skipped = new_code_cell("1", metadata={"tags": ["skip-execution"]})
    runs = document.cells_to_run(
        new_notebook(cells=[new_markdown_cell("x"), new_code_cell(" "), skipped, new_code_cell("2")])
    )
    assert [(run.index, run.number, run.title) for run in runs] == [(3, 1, "2")]


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.html"
    document.write(path, "before")
    with pytest.raises(UnicodeEncodeError):
        document.write(path, "\ud800")
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["x.html"]


def test_notebooks_of_older_formats_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.ipynb"
    old = {"cells": [{"cell_type": "code", "source": "1", "metadata": {}, "outputs": [], "execution_count": None}]}
    path.write_text(json.dumps({**old, "metadata": {}, "nbformat": 4, "nbformat_minor": 2}))
    assert page(result(*document.cells_to_run(document.read(path))), document.read(path))


# -- the command -------------------------------------------------------------------------------------------------------


def options(notebook: object, output: object = None, **changes: Any) -> argparse.Namespace:
    known = {"timeout": None, "interval": 0.5, "allow_errors": False}
    return argparse.Namespace(notebook=str(notebook), output=output and str(output), **{**known, **changes})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no notebook"),
        ("not json", "is not a valid notebook"),
        ("{}", "is not a valid notebook"),
        ('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"x": 1}]}', "is not a valid notebook"),
        ("\x00\x01", "is not a valid notebook"),
    ],
)
def test_a_notebook_that_cannot_be_used_is_one_clear_line_and_code_2(
    content: str | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "nb.ipynb"
    if content is not None:
        path.write_text(content)
    assert report_command(options(path)) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


@pytest.mark.parametrize("changes", [{"timeout": 0}, {"timeout": -1.0}, {"interval": 0}, {"interval": float("nan")}])
def test_arguments_out_of_range_are_code_2(
    changes: dict[str, float], write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report_command(options(write("1"), **changes)) == 2
    assert "must be" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_told_before_anything_runs(write: Write, tmp_path: Path) -> None:
    source = write("1")
    with pytest.raises(NotebookError, match="is the notebook itself"):
        document.output_for(source, source)
    with pytest.raises(NotebookError, match="is a folder"):
        document.output_for(source, tmp_path)
    with pytest.raises(NotebookError, match="cannot be written"):
        document.output_for(source, source / "in a file" / "x.html")
    assert document.output_for(source, None) == source.with_suffix(".html")


class Console(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_one_line_a_cell_and_in_place_only_on_a_terminal() -> None:
    steps = [Progress(cell(1), 12, True, 0.2, MIB, 0), Progress(cell(1), 12, False, 0.4, 2 * MIB, -MIB)]
    plain, live = io.StringIO(), Console()
    for out in (plain, live):
        terminal = Terminal(out)
        for step in steps:
            terminal.progress(step)
    assert plain.getvalue().count("\n") == 1
    assert "\r" not in plain.getvalue()
    assert " 1/12  step 1" in plain.getvalue()
    assert "-1.0 MiB" in plain.getvalue()
    assert live.getvalue().count("\r\x1b[K") == 2


# -- real kernels ------------------------------------------------------------------------------------------------------


def leftovers() -> set[str]:
    """Private folders and connection files of kernels, and kernels that run below this process."""
    temporary = {name for name in os.listdir(tempfile.gettempdir()) if name.startswith("memkit-report-")}
    children = {str(child.pid) for child in psutil.Process().children(recursive=True)}
    return temporary | children


@pytest.mark.kernel
def test_a_good_notebook_is_run_reported_and_left_as_it_was(write: Write, tmp_path: Path) -> None:
    source = write(
        "md:# A run\nwith text",
        "%load_ext memkit\nimport os; print(os.getcwd())",
        "data = bytearray(64 * 2**20)\n%memkit register data --ttl none",
        "%memkit release data",
    )
    before, known = source.read_bytes(), leftovers()
    told: list[Progress] = []
    made = run(source, tmp_path / "out" / "report.html", interval=0.1, on_progress=told.append)
    assert made.exit_code == 0
    assert made.notes == ()
    assert source.read_bytes() == before
    assert leftovers() <= known
    assert [p.cell.number for p in told if not p.running] == [1, 2, 3]
    assert made.cells[1].delta == pytest.approx(64 * MIB, rel=0.2)
    assert [event.kind for event in made.trace.events][-1] == "released"
    html = (tmp_path / "out" / "report.html").read_text()
    assert str(tmp_path) in html  # the folder of the notebook is where it runs
    assert structure(html).wrong == []
    executed = nbformat.read(tmp_path / "out" / "report.ipynb", as_version=4)
    assert [c.execution_count for c in executed.cells if c.cell_type == "code"] == [1, 2, 3]


@pytest.mark.kernel
def test_the_first_cell_that_raises_ends_the_run_unless_errors_are_allowed(write: Write, tmp_path: Path) -> None:
    source = write("x = 1", "1 / 0", "print('after')")
    made = run(source, tmp_path / "r.html")
    assert (made.exit_code, [c.state for c in made.cells]) == (1, ["done", "failed", "not run"])
    assert made.cells[1].error == "ZeroDivisionError"
    assert "ZeroDivisionError" in (tmp_path / "r.html").read_text()
    made = run(source, tmp_path / "r.html", allow_errors=True)
    assert [c.state for c in made.cells] == ["done", "failed", "done"]


@pytest.mark.kernel
def test_a_kernel_that_is_killed_leaves_a_report_of_what_was_resident(write: Write, tmp_path: Path) -> None:
    source = write(
        "a, b = bytearray(10 * 2**20), bytearray(5 * 2**20)\n%memkit register a b",
        "%memkit spill b",
        # The kernel sends what is printed from another thread, which needs a moment.
        "import os, time\nprint('the last', 'words')\ntime.sleep(0.5)\nos.kill(os.getpid(), 9)",
        "never = 1",
    )
    known = leftovers()
    made = run(source, tmp_path / "r.html", interval=0.1)
    assert made.exit_code == 3
    assert [c.state for c in made.cells] == ["done", "done", "died", "not run"]
    assert made.death is not None
    assert made.death.cell is not None
    assert made.death.cell.number == 3
    assert "SIGKILL" in made.death.cause
    assert {(r.name, r.tier) for r in made.death.resources} == {("a", "ram"), ("b", "disk")}
    assert made.death.sample is not None
    html = (tmp_path / "r.html").read_text()
    assert "The kernel died in cell 3" in html
    assert "the last words" in html
    assert leftovers() <= known
    executed = nbformat.read(tmp_path / "r.ipynb", as_version=4)
    assert executed.cells[2].outputs[0].text.strip() == "the last words"


@pytest.mark.kernel
def test_a_cell_that_takes_too_long_is_interrupted_and_reported(write: Write, tmp_path: Path) -> None:
    known = leftovers()
    made = run(write("import time", "time.sleep(60)", "1"), tmp_path / "r.html", timeout=1.0)
    assert [c.state for c in made.cells] == ["done", "timed out", "not run"]
    assert (made.exit_code, made.cells[1].error) == (1, "KeyboardInterrupt")
    assert made.seconds < 30
    assert leftovers() <= known


@pytest.mark.kernel
def test_a_kernel_that_does_not_start_is_reported(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tmp_path / "share" / "kernels" / "broken"
    spec.mkdir(parents=True)
    argv = [sys.executable, "-c", "import sys; sys.exit('no such module')"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    made = run(write("1", kernelspec={"name": "broken", "display_name": "x"}), tmp_path / "r.html")
    assert made.exit_code == 3
    assert made.death is not None
    assert "did not start: it ended by itself with exit code 1" in made.death.cause
    assert made.death.said == "no such module"
    assert "did not start" in (tmp_path / "r.html").read_text()


@pytest.mark.kernel
@pytest.mark.skipif(os.name == "nt", reason="signals as of POSIX")
def test_ctrl_c_ends_the_kernel_and_writes_what_there_is(write: Write, tmp_path: Path) -> None:
    source = write("print('first')", "open('running', 'w').close()\nimport time; time.sleep(60)", "1")
    command = [sys.executable, "-m", "memkit", "report", str(source), "-o", str(tmp_path / "r.html")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "running").exists() and time.monotonic() < deadline:
        time.sleep(0.05)  # another process: there is no clock to inject
    kernels = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in said
    assert "1/3  print('first')" in said
    assert "Interrupted" in (tmp_path / "r.html").read_text()
    assert kernels
    assert not any(child.is_running() for child in kernels)


def test_a_kernel_that_is_not_installed_is_replaced_and_told(write: Write) -> None:
    from memkit.notebook.report.runner import _kernel_for

    name, notes = _kernel_for(
        new_notebook(metadata={"kernelspec": {"name": "nowhere-to-be-found", "display_name": "x"}})
    )
    assert name == "python3"
    assert "nowhere-to-be-found" in notes[0]
    assert _kernel_for(new_notebook()) == ("python3", [])
