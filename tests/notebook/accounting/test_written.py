"""Records go into the notebook file, and nothing else in it changes."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import nbformat
import pytest

from memkit.errors import MemkitError
from memkit.notebook.accounting import written
from memkit.notebook.accounting.written import write
from memkit.units import MIB

from .conftest import made


def document(**cell: Any) -> dict[str, Any]:
    first = {
        "cell_type": "code", "execution_count": None, "id": "a", "metadata": {"tags": ["x"], "alpha": 1.5e-07},
        "outputs": [], "source": ["s = 'ünï \\ud83d'\n", "x = load()"],
    }  # fmt: skip
    second = {"cell_type": "markdown", "id": "b", "metadata": {}, "source": ["<b>é</b>"]}
    return {"cells": [first | cell, second], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def dumps(style: str) -> bytes:
    """The same notebook as different programs write it."""
    given: dict[str, Any] = {
        "nbformat": {"indent": 1, "sort_keys": True, "ensure_ascii": False},
        "ascii": {"indent": 1, "sort_keys": False},
        "four": {"indent": 4, "ensure_ascii": False},
        "tabs": {"indent": "\t", "ensure_ascii": False},
        "one line": {"ensure_ascii": False},
        "compact": {"ensure_ascii": False, "separators": (",", ":")},
        "windows": {"indent": 1, "ensure_ascii": False},
    }[style]
    text = json.dumps(document(), **given)
    return text.replace("\n", "\r\n").encode() if style == "windows" else (text + "\n").encode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "nb.ipynb"
    made.write_bytes(dumps("nbformat"))
    return made


@pytest.mark.parametrize("style", ["nbformat", "ascii", "four", "tabs", "one line", "compact", "windows"])
def test_all_else_stays_to_the_byte(path: Path, style: str) -> None:
    """Taking the entry out again gives the old file."""
    path.write_bytes(dumps(style))
    write(path, [made()])
    text = path.read_bytes().decode()
    assert json.loads(text)["cells"][0]["metadata"]["memkit"]["needed"] == 200 * MIB
    assert re.sub(r',\s*"memkit": ?\{[^}]*\}', "", text) == dumps(style).decode()


def test_a_file_of_nbformat_is_what_nbformat_would_write(path: Path) -> None:
    path.write_text(nbformat.writes(nbformat.from_dict(document())), encoding="utf-8")
    write(path, [made()])
    text = path.read_text(encoding="utf-8")
    assert nbformat.writes(nbformat.reads(text, 4)) == text.removesuffix("\n")
    nbformat.validate(nbformat.reads(text, 4))


def test_figures_are_bytes_and_seconds_and_the_last_run_counts(path: Path) -> None:
    done = write(path, [made(seconds=9.0), made(seconds=1.5), made(cell_id="gone"), made(cell_id=None)])
    assert (done.cells, done.missing) == (1, 1)
    entry = json.loads(path.read_text())["cells"][0]["metadata"]["memkit"]
    assert entry["seconds"] == 1.5
    assert entry["delta"] == 50 * MIB
    assert entry["method"] == "kernel high-water mark"
    assert entry["started"].startswith("1970-01-12T")
    assert "source" not in entry


def test_written_again_it_is_replaced(path: Path) -> None:
    write(path, [made()])
    write(path, [made(seconds=3.0)])
    assert path.read_text().count("memkit") == 1


def test_neither_nested_cells_nor_those_that_were_not_run_are_written(path: Path) -> None:
    with pytest.raises(MemkitError, match="come with an id"):
        write(path, [made(depth=1), made(ran=False), made(in_history=False), made(cell_id=None)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("not JSON", "cannot be read"),
        ("[]", "not a notebook"),
        ('{"cells": 3}', "not a notebook"),
        ('{"cells": [{"cell_type": "code", "metadata": {}}]}', "no ids"),
        ('{"cells": [{"cell_type": "code", "id": "other", "metadata": {}}]}', "none of the 1 cells that ran"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_changed(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "nb.ipynb"
    if text is not None:
        path.write_text(text)
    with pytest.raises(MemkitError, match=message):
        write(path, [made()])
    assert not path.exists() if text is None else path.read_text() == text
    assert len(os.listdir(tmp_path)) == (text is not None)


def test_the_old_file_is_whole_where_writing_fails(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(MemkitError, match="disk full"):
        write(path, [made()])
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name], "a half-written file is left"


def test_a_file_that_somebody_saves_meanwhile_is_not_overwritten(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put = written._put

    def save_then_put(*arguments: Any) -> int:
        path.write_text("saved by JupyterLab")
        os.utime(path, ns=(1, 1))
        return put(*arguments)

    monkeypatch.setattr(written, "_put", save_then_put)
    with pytest.raises(MemkitError, match="saved by somebody else"):
        write(path, [made()])
    assert path.read_text() == "saved by JupyterLab"


def test_permissions_and_links_stay(path: Path, tmp_path: Path) -> None:
    path.chmod(0o640)
    link = tmp_path / "link.ipynb"
    link.symlink_to(path)
    assert write(link, [made()]).path == path
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
