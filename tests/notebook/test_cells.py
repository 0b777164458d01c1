"""Hooks around cells: what listeners are told, and that every cell that began ends once, however it does."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from memkit.errors import ReadingError
from memkit.notebook.extension import loaded


class Told(list[tuple[str, str]]):
    """What a listener is told, in order: the word and the cell's source."""

    def __call__(self, what: str, item: Any) -> None:
        self.append((what, item.source))


@pytest.fixture
def cells(notebook: Any) -> Any:
    return loaded(notebook.shell).cells  # type: ignore[union-attr]


@pytest.fixture
def told(cells: Any) -> Told:
    cells.listeners.append(made := Told())
    return made


def test_a_cell_is_told_at_its_beginning_its_end_and_with_its_record(notebook: Any, told: Told) -> None:
    notebook("x = 1")
    assert told == [("cell", "x = 1"), ("end", "x = 1"), ("record", "x = 1")]


@pytest.mark.parametrize("source", ["1/0", "1 +", "raise KeyboardInterrupt", "raise SystemExit", "%nosuch", "await x"])
def test_whatever_goes_wrong_each_that_began_ends_once_and_is_recorded(notebook: Any, told: Told, source: str) -> None:
    notebook(source)
    assert [what for what, _ in told] == ["cell", "end", "record"]


@pytest.mark.parametrize(
    ("source", "error", "ran"),
    [("1/0", "ZeroDivisionError", True), ("1 +", "SyntaxError", False), ("x", None, True)],
)
def test_the_record_says_how_it_ended(notebook: Any, cells: Any, source: str, error: str | None, ran: bool) -> None:
    notebook.shell.user_ns["x"] = 1
    notebook(source)
    assert (cells.records[-1].error, cells.records[-1].ran) == (error, ran)


def test_silent_requests_are_not_told_of_and_spoil_nothing(notebook: Any, cells: Any, told: Told) -> None:
    notebook("get_ipython().run_cell('y = 2', silent=True); z = 3")
    notebook.shell.run_cell("w = 4", silent=True)
    assert [what for what, _ in told] == ["cell", "end", "record"]
    assert notebook["y"] + notebook["z"] + notebook["w"] == 9
    assert cells.running.stack() == []


def test_an_empty_cell_run_by_a_cell_ends_nothing(notebook: Any, cells: Any, told: Told) -> None:
    source = "get_ipython().run_cell('  ')\nget_ipython().run_cell('', silent=True)\nx = 1"
    notebook(source)
    assert told == [("cell", source), ("end", source), ("record", source)]
    assert cells.running.stack() == []


def test_a_cell_whose_end_ipython_does_not_tell_ends_with_its_outer_one(notebook: Any, cells: Any, told: Told) -> None:
    source = "await get_ipython().run_cell_async('n = 1', transformed_cell='n = 1')"
    notebook(source)
    assert notebook["n"] == 1
    assert told == [("cell", source), ("cell", "n = 1"), ("end", "n = 1"), ("end", source), ("record", source)]
    assert cells.running.stack() == []


def test_what_a_listener_fails_with_reaches_no_cell(notebook: Any, cells: Any, told: Told) -> None:
    cells.listeners.insert(0, lambda *_: 1 / 0)
    notebook("x = 5")
    assert notebook.error is None
    assert len(told) == 3
    del cells.listeners[0]


def test_what_is_to_be_done_at_the_end_is_done_even_after_an_error(notebook: Any, cells: Any) -> None:
    done: list[Any] = []

    def ask() -> None:
        scope = cells.running.current()
        scope.on_end += [lambda: done.append("end"), lambda: 1 / 0]
        scope.on_record += [lambda record: done.append(record.error)]

    notebook.shell.user_ns["ask"] = ask
    notebook("ask()\n[][1]")
    assert done == ["end", "IndexError"]


def test_where_memory_cannot_be_read_the_cell_runs_without_a_record(notebook: Any, cells: Any) -> None:
    def fail() -> Any:
        raise ReadingError("/proc is gone")

    count = len(cells.records)
    cells.running._read, read = fail, cells.running._read
    assert "Error in callback" not in notebook("x = 6")
    cells.running._read = read
    assert notebook.error is None
    assert notebook["x"] == 6
    assert len(cells.records) == count


def test_samples_stand_in_where_the_kernel_keeps_no_mark(notebook: Any, cells: Any, tmp_path: Any) -> None:
    from memkit.memory.high_water import HighWater

    cells.running._mark = HighWater(tmp_path)  # no /proc/self/clear_refs below this root
    notebook("x = 1")
    assert cells.records[-1].peak is None
    cells.sampled_peak = lambda: 10**12
    notebook("x = 1")
    assert (cells.records[-1].peak, cells.records[-1].method) == (10**12, "sampled")


def test_nothing_is_left_in_the_shell(plain: Any) -> None:
    shell = plain.shell
    before = list(shell.input_transformers_cleanup), {name: list(f) for name, f in shell.events.callbacks.items()}
    plain("%load_ext memkit")
    plain("%memkit badge on")
    plain("%unload_ext memkit")
    assert before == (
        list(shell.input_transformers_cleanup),
        {name: list(found) for name, found in shell.events.callbacks.items()},
    )
    assert "memkit" not in shell.magics_manager.magics["cell"]


def test_loading_imports_nothing_that_only_questions_need() -> None:
    code = """
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
import memkit
memkit.load_ipython_extension(shell)
memkit.unload_ipython_extension(shell)
print([name for name in sys.modules if name.startswith("memkit.notebook.accounting.")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['memkit.notebook.accounting.running']"
