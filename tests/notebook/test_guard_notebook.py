"""The guard notebook as a new user runs it."""

from __future__ import annotations

import nbformat
import pytest

from tests.notebook.test_quickstart import ROOT, outputs, run

NOTEBOOK = ROOT / "notebooks" / "guard.ipynb"
pytestmark = [pytest.mark.kernel, pytest.mark.slow]


def test_the_committed_notebook_has_no_outputs():
    for cell in nbformat.read(NOTEBOOK, 4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_every_cell_that_takes_too_much_is_refused_and_everything_else_works(tmp_path):
    command = ("jupyter", "nbconvert", "--to", "notebook", "--execute", NOTEBOOK, "--output", tmp_path / "out.ipynb")
    done = run(*command, tmp_path=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    executed = nbformat.read(tmp_path / "out.ipynb", 4)
    raised = [o.ename for cell in executed.cells for o in cell.get("outputs", []) if o.output_type == "error"]
    assert raised == ["MemoryGuardError"] * 3
    text = outputs(executed)
    for promise in (
        "guard on: ",
        "this cell needed more memory than is left",
        "199999990000000",
        "frames  general  381.5 MiB  disk  demoted",
        "True",
        "this cell has used up its budget of 100.0 MiB",
        "this cell has used up its budget of 50.0 MiB",
        "kernel high-water mark",
        "rescue: on",
    ):
        assert promise in text, f"{promise!r} is not in:\n{text}"
