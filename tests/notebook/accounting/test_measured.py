"""`%%memkit`: the cell runs as if the line were not there, and then says what it took."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from memkit.errors import MemoryGuardError
from memkit.notebook.accounting.measured import THIS_CELL, unwrap

from .conftest import TAKE

CALL = f"get_ipython().run_cell_magic('memkit', {{!r}}, {THIS_CELL!r})\n"


@pytest.mark.parametrize(
    ("cell", "becomes"),
    [
        ("%%memkit\nx = 1\n", CALL.format("") + "x = 1\n"),
        ("%%memkit  --top 2 \nx\n\ny\n", CALL.format("--top 2") + "x\n\ny\n"),
        ("%%memkit\n\n    x\n    y\n", CALL.format("") + "\nx\ny\n"),
        ("%%memkit\n%%time -n\nx\n", CALL.format("") + "get_ipython().run_cell_magic('time', '-n', 'x\\n')\n"),
        ("%%memkit\n%%memkit -q\nx\n", CALL.format("") + CALL.format("-q") + "x\n"),
        *((same, same) for same in ("%%memkit\n", "%%memkit\n \n", "%%memkit?\nx\n", "%%memkits\nx\n")),
        *((same, same) for same in ("%%memkit --help\nx\n", "%%memkit -h\nx\n")),
    ],
)
def test_only_the_line_itself_is_replaced(cell: str, becomes: str) -> None:
    assert "".join(unwrap(cell.splitlines(keepends=True))) == becomes


def test_typed_text_is_complete_when_a_cell_magics_is(notebook: Any) -> None:
    """In a terminal: after an empty line, not after the first statement."""
    manager: TransformerManager = notebook.shell.input_transformer_manager
    assert manager.check_complete("%%memkit\nx = 1\n")[0] == manager.check_complete("%%time\nx = 1\n")[0]


def test_it_says_the_peak_above_the_beginning_what_is_kept_and_what_was_freed(notebook: Any) -> None:
    notebook(TAKE)
    text = notebook("%%memkit -o answer\nkept = take(20)\ngone = take(40)\ngone.close()")
    answer = notebook["answer"]
    assert text.splitlines()[0].startswith(f"cell {answer.cell.label}: peak +")
    if answer.cell.method == "kernel high-water mark":
        assert answer.peak == pytest.approx(60 * 2**20, abs=2**20)
        assert answer.freed == pytest.approx(40 * 2**20, abs=2**20)
    assert answer.delta == pytest.approx(20 * 2**20, abs=2**20)
    assert answer.seconds > 0


def test_the_biggest_new_variables_are_named_and_scraps_are_not(notebook: Any) -> None:
    text = notebook("%%memkit\nrows = [0] * 10**6\nn = 3\nless = [0] * 10**5\nn")
    assert [line.split()[0] for line in text.splitlines() if line.endswith("new")] == ["rows", "less"]
    assert "less" not in notebook("%%memkit --top 1\nless = [0] * 10**5\nrows = [0] * 10**6")
    assert "less" not in notebook("%%memkit --top 0\nless = [0] * 10**5")


def test_the_cell_itself_is_as_it_would_be_without(notebook: Any) -> None:
    """Names, the display of the last expression, `_`, `Out`, `In`, other magics, a future import."""
    text = notebook("%%memkit\nfrom __future__ import annotations\nx = 6\n%memkit -q\nx * 7")
    assert text.splitlines()[0].endswith("42")
    assert notebook["x"] == 6
    assert notebook["_"] == 42
    assert list(notebook["Out"].values())[-1] == 42
    assert notebook("%%memkit\nx;").count("6") == notebook("%%memkit\npass").count("6")


def test_an_error_has_the_line_it_has_in_the_notebook_and_is_shown_before_the_answer(notebook: Any) -> None:
    text = notebook("%%memkit\nx = 1\ndef f():\n    1/0\n\nf()")
    assert "line 6" in text
    assert "line 4, in f()" in text
    assert text.count("ZeroDivisionError: division by zero") == 1
    assert text.index("division by zero") < text.index("ended by ZeroDivisionError")
    assert type(notebook.error) is ZeroDivisionError


def test_await_works(notebook: Any) -> None:
    text = notebook("%%memkit\nimport asyncio\nawait asyncio.sleep(0, 'slept')")
    assert "slept" in text
    assert "peak" in text
    assert notebook.error is None


@pytest.mark.parametrize("others", ["%%memkit\n%%time", "%%time\n%%memkit", "%%memkit\n\n%%time"])
def test_other_cell_magics_go_with_it_in_either_order(notebook: Any, others: str) -> None:
    text = notebook(f"{others}\nrows = [0] * 10**6\nlen(rows)")
    assert "Wall time" in text
    assert "1000000" in text
    assert "peak" in text
    assert notebook["rows"][0] == 0


def test_what_captures_a_cell_captures_the_answer_and_what_is_captured_stays_so(notebook: Any) -> None:
    assert notebook("%%capture out\n%%memkit\nprint('said')") == ""
    assert notebook["out"].stdout == "said\n"
    assert "peak" in str(notebook["out"].outputs[0].data["text/plain"])
    assert notebook("%%memkit\n%%capture out\nprint('said')").startswith("cell [")
    assert notebook["out"].stdout == "said\n"


def test_quiet_output_and_json(notebook: Any, tmp_path: Any) -> None:
    assert notebook("%%memkit -q -o answer\nx = 1") == ""
    assert notebook["answer"].cell.source.endswith("x = 1")
    assert json.loads(notebook("%%memkit --json\nx = 1"))["cell"]["error"] is None
    assert notebook(f"%%memkit -q --json {tmp_path / 'a.json'}\nx = 1") == ""
    assert json.loads((tmp_path / "a.json").read_text())["cell"]["method"]
    assert "could not be written" in notebook("%%memkit -q --json /no/such/folder/a.json\nx = 1")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--bogus", "unrecognized arguments"),
        ("--budget lots", "'lots' is not a size"),
        ("--top many", "invalid int"),
        ("-o 3x", "no name of a variable"),
        ("--json 'x", "No closing quotation"),
    ],
)
def test_wrong_use_is_one_line_and_the_cell_is_not_run(notebook: Any, line: str, message: str) -> None:
    text = notebook(f"%%memkit {line}\nran = True").strip()
    assert text.startswith("UsageError: ")
    assert message in text
    assert text.count("\n") == 0
    assert "ran" not in notebook


def test_help_shows_the_options_and_runs_nothing(notebook: Any) -> None:
    text = notebook("%%memkit --help\nran = True")
    assert "usage: %%memkit [--budget SIZE]" in text
    assert "ran" not in notebook


def test_options_may_come_from_variables(notebook: Any) -> None:
    notebook("many = 1\n")
    assert "less" not in notebook("%%memkit --top {many}\nless = [0] * 10**5\nrows = [0] * 10**6")


def test_called_by_a_program_it_runs_the_body_it_is_given(notebook: Any) -> None:
    text = notebook("get_ipython().run_cell_magic('memkit', '', 'rows = [0] * 10**6')")
    assert "rows" in text
    assert len(notebook["rows"]) == 10**6


def test_without_a_running_cell_there_is_nothing_to_measure(notebook: Any) -> None:
    with pytest.raises(Exception, match="no cell runs here"):
        notebook.shell.run_cell_magic("memkit", "", THIS_CELL)


@pytest.fixture
def budgets(notebook: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Budgets that were begun (their bytes) and ended (None)."""
    seen: list[Any] = []

    @contextlib.contextmanager
    def budget(size: int) -> Iterator[None]:
        seen.append(size)
        yield
        seen.append(None)

    monkeypatch.setattr(notebook.session, "budget", budget)
    return seen


@pytest.mark.parametrize("body", ["x = 1", "1/0", "import asyncio\nawait asyncio.sleep(0)", "%%time\nx = 1"])
def test_a_budget_holds_for_the_cell_and_no_longer(notebook: Any, budgets: list[Any], body: str) -> None:
    during: list[Any] = []
    notebook.shell.user_ns["look"] = lambda: during.append(list(budgets))
    text = notebook(f"%%memkit --budget 1.5GiB\n{body if body[0] == '%' else 'look()' + chr(10) + body}")
    assert "of a budget of 1.50 GiB" in text
    assert budgets == [3 * 2**29, None]
    assert during in ([[3 * 2**29]], [])


def test_a_budget_that_is_refused_ends_the_cell_before_it_begins(
    notebook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(size: int) -> Any:
        raise MemoryGuardError("no guard here")

    monkeypatch.setattr(notebook.session, "budget", refuse)
    assert "UsageError: no guard here" in notebook("%%memkit --budget 1GiB\nran = True")
    assert "ran" not in notebook


def test_the_answer_does_not_count_what_measuring_itself_takes(notebook: Any, records: Callable[[], Any]) -> None:
    """The first use imports memkit's own code for it."""
    notebook("%%memkit -q\npass")
    assert records()[-1].delta < 2**20
    assert records()[-1].seconds < 0.1
