"""The badge and `%memkit cells`, in a real shell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import nbformat
import pytest
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell

from memkit.notebook import extension
from memkit.notebook.accounting import badge

from .conftest import made


@pytest.fixture
def published(notebook: Any) -> Iterator[list[dict[str, Any]]]:
    """What is published instead of shown, with badges on."""
    shell: InteractiveShell = notebook.shell
    notebook("%memkit badge on")
    publisher = CapturingDisplayPublisher()
    before, shell.display_pub = shell.display_pub, publisher
    yield publisher.outputs
    shell.display_pub = before


def test_each_cell_has_one_line_with_its_record_as_metadata(notebook: Any, published: list[dict[str, Any]]) -> None:
    notebook("x = 1")
    (output,) = published
    assert output["data"]["text/plain"].startswith("peak +")
    assert "<script" not in output["data"]["text/html"]
    assert output["metadata"]["memkit"]["method"]
    assert output["metadata"]["memkit"]["seconds"] > 0
    kept = nbformat.v4.new_output("display_data", data=output["data"], metadata=output["metadata"])
    nbformat.validate(kept, "output", version=4)


def test_it_leaves_out_and_the_last_result_alone(notebook: Any, published: list[dict[str, Any]]) -> None:
    notebook("6 * 7")
    assert notebook["_"] == 42
    assert list(notebook["Out"].values())[-1] == 42
    assert len(published) == 1


@pytest.mark.parametrize("source", ["1 +", "   ", "%%memkit\nx = 1"])
def test_there_is_none_for_a_cell_that_was_not_run_or_has_an_answer(
    notebook: Any, published: list[dict[str, Any]], source: str
) -> None:
    notebook(source)
    assert not [output for output in published if "memkit" in (output.get("metadata") or {})]


def test_there_is_none_for_what_is_run_behind_the_scenes(notebook: Any, published: list[dict[str, Any]]) -> None:
    notebook.shell.run_cell("x = 1", silent=True)
    notebook.shell.run_cell("x = 1", store_history=False)
    assert published == []


def test_what_a_cell_runs_has_none_and_captured_output_stays_what_it_was(
    notebook: Any, published: list[dict[str, Any]]
) -> None:
    notebook("%%capture out\nprint('said')\nran = get_ipython().run_cell('z = 1')")
    assert notebook["out"].stdout == "said\n"
    assert notebook["out"].outputs == []
    assert len(published) == 1


def test_after_an_error_there_is_one(notebook: Any, published: list[dict[str, Any]]) -> None:
    notebook("1/0")
    assert published[-1]["metadata"]["memkit"]["error"] == "ZeroDivisionError"


def test_it_can_be_switched_and_says_how(notebook: Any) -> None:
    assert "off (%memkit badge on" in notebook("%memkit badge")
    assert notebook("%memkit badge on").splitlines()[-1].startswith("peak")
    assert "peak" in notebook("%memkit badge on")
    assert notebook("x = 1").count("peak") == 1, "switched on twice, it is shown twice"
    assert "peak" not in notebook("%memkit badge off")
    assert notebook("x = 1") == ""


def test_a_setting_switches_it_on_from_the_start(plain: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.yaml").write_text("guard:\n  badge: true\n")
    monkeypatch.setenv("MEMKIT_CONFIG", str(tmp_path / "own.yaml"))
    plain("%load_ext memkit")
    assert plain("x = 1").startswith("peak +")


def test_the_line_has_the_vram_only_where_there_is_some() -> None:
    assert badge.text(made()) == "peak +200.0 MiB  delta +50.0 MiB  1.50 s"
    assert badge.text(made(vram_peak=2**30)) == "peak +200.0 MiB  delta +50.0 MiB  VRAM peak 1.00 GiB  1.50 s"


# -- %memkit cells -------------------------------------------------------------------------------------------------


def test_cells_are_ranked_by_what_is_asked_for(notebook: Any) -> None:
    notebook("import time\ntime.sleep(0.2)")
    notebook("rows = [0] * 10**7")
    assert "rows" in notebook("%memkit cells -n 1").splitlines()[-1]
    assert "by time" in notebook("%memkit cells --sort time")
    assert "import time" in notebook("%memkit cells -s time -n 1").splitlines()[-1]
    assert len(notebook("%memkit cells -n 0").splitlines()) > len(notebook("%memkit cells -n 1").splitlines())
    assert "invalid choice" in notebook("%memkit cells --sort colour")


@pytest.fixture
def file(notebook: Any, tmp_path: Any) -> Any:
    path = tmp_path / "nb.ipynb"
    written = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 1", id="first")])
    nbformat.write(written, path)
    notebook.shell.run_cell("x = 1", store_history=True, cell_id="first")
    return path


def test_records_are_written_into_the_notebook_of_the_session(
    notebook: Any, file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", str(file))
    text = notebook("%memkit cells --write")
    assert f"written into 1 cells of {file}" in text
    assert "the file has changed" in text
    (cell,) = nbformat.read(file, 4).cells
    assert cell.metadata.memkit.seconds > 0


def test_another_file_can_be_named_and_what_cannot_be_done_is_one_line(
    notebook: Any, file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "written into 1 cells" in notebook(f"%memkit cells --write {file}")
    for name in ("", "/no/such/file.ipynb"):
        monkeypatch.setenv("JPY_SESSION_NAME", name)
        text = notebook("%memkit cells --write")
        assert text.startswith("UsageError: this kernel is not told which file")
        assert text.strip().count("\n") == 0
    assert "cannot be read as a notebook" in notebook("%memkit cells --write /no/such/file.ipynb")


def test_outside_a_notebook_there_are_no_cells(notebook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extension, "loaded", lambda shell: None)
    assert "UsageError: cells are accounted for in a notebook" in notebook("%memkit cells")
