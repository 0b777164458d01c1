"""The quickstart notebook as a new user runs it: by nbconvert, and as a report."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "quickstart.ipynb"

pytestmark = [pytest.mark.kernel, pytest.mark.slow]


def run(*command: str | Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "IPYTHONDIR": str(tmp_path / "ipython"), "MEMKIT_STORE_DIR": str(tmp_path)}
    return subprocess.run([sys.executable, "-m", *command], text=True, capture_output=True, env=environ, cwd=ROOT)


def outputs(notebook: nbformat.NotebookNode) -> str:
    parts = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            parts.append(output.get("text") or output.get("data", {}).get("text/plain") or output.get("evalue", ""))
    return "\n".join(parts)


def test_the_committed_notebook_has_no_outputs():
    for cell in nbformat.read(NOTEBOOK, 4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_it_runs_under_plain_nbconvert(tmp_path):
    command = ("jupyter", "nbconvert", "--to", "notebook", "--execute", NOTEBOOK, "--output", tmp_path / "out.ipynb")
    done = run(*command, tmp_path=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    executed = nbformat.read(tmp_path / "out.ipynb", 4)
    text = outputs(executed)
    for promise in (
        "level normal",
        "registered df (general",
        "was released at",  # the expired scratch
        "demoted df: expected",
        "{'df': False, 'weights': True}",
        "released frames: expected",
        "cache['latest'][0]",
        "would free",
    ):
        assert promise in text, f"{promise!r} is not in:\n{text}"
    raised = [cell for cell in executed.cells for o in cell.get("outputs", []) if o.output_type == "error"]
    assert [cell.source for cell in raised] == ["scratch.mean()"]
    pictures = [o for cell in executed.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert pictures, "the last cell shows a plot"


def test_it_runs_as_a_report(tmp_path):
    done = run("memkit", "report", NOTEBOOK, "-o", tmp_path / "out.html", tmp_path=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert str(tmp_path / "out.html") in done.stdout
    page = (tmp_path / "out.html").read_text()
    assert "scratch" in page
    assert "data:image/" in page
