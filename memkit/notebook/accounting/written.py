"""Records in the notebook file, as metadata of the cells that they are of."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memkit.errors import MemkitError
from memkit.notebook.accounting.record import CellRecord

_KEY = "memkit"


@dataclass(frozen=True, slots=True)
class Written:
    """Where records were written; `missing` is how many cells that ran are not in the file."""

    path: Path
    cells: int
    missing: int


@dataclass(frozen=True, slots=True)
class _Style:
    """How a file's JSON was written, so that it can be written so again."""

    indent: int | str | None = 1
    sort_keys: bool = False
    ensure_ascii: bool = False
    end: str = "\n"
    line: str = "\n"
    separators: tuple[str, str] = (",", ": ")

    def dumps(self, document: Any) -> str:
        text = json.dumps(
            document,
            indent=self.indent,
            sort_keys=self.sort_keys,
            ensure_ascii=self.ensure_ascii,
            separators=self.separators,
        )
        return text.replace("\n", self.line) + self.end


def summary(record: CellRecord) -> dict[str, Any]:
    """What is kept of a record: bytes and seconds, local time with its offset as ISO 8601; nothing of its source."""
    started = datetime.datetime.fromtimestamp(record.started).astimezone().isoformat(timespec="seconds")
    fields = record.to_dict()
    kept = ("peak", "needed", "delta", "freed", "seconds", "gc_seconds", "gc_runs", "vram_peak", "method", "error")
    found = {name: fields[name] for name in kept if fields[name] is not None}
    return {"execution_count": record.execution_count, "started": started, **found}


def write(path: Path, records: Iterable[CellRecord]) -> Written:
    """Put each cell's last record into its `metadata.memkit`; the rest of the file stays as it is, to the byte where
    its JSON was written in a usual way. Atomic. Raises MemkitError, and then nothing has changed."""
    latest = {r.cell_id: r for r in records if r.cell_id is not None and r.of_notebook and r.ran}
    if not latest:
        raise MemkitError("no cell that ran has come with an id: this front end does not send them")
    path = Path(os.path.realpath(path))
    try:
        before = path.stat()
        text = path.read_bytes().decode()
        document = json.loads(text)
    except (OSError, ValueError) as error:
        raise MemkitError(f"{path} cannot be read as a notebook: {error}") from error
    style = _style(text, document)
    count = _put(document, latest, path)
    if path.stat().st_mtime_ns != before.st_mtime_ns:
        raise MemkitError(f"{path} has been saved by somebody else just now; try again")
    _replace(path, style.dumps(document))
    return Written(path, count, len(latest) - count)


def _put(document: Any, latest: Mapping[str, CellRecord], path: Path) -> int:
    cells = _cells(document, path)
    by_id = {cell["id"]: cell for cell in cells if "id" in cell}
    if not by_id:
        raise MemkitError(f"the cells of {path} have no ids, as they have since nbformat 4.5; save it anew")
    found = by_id.keys() & latest.keys()
    if not found:
        raise MemkitError(f"none of the {len(latest)} cells that ran is in {path}; save the notebook, or name another")
    for cell_id in found:
        by_id[cell_id].setdefault("metadata", {})[_KEY] = summary(latest[cell_id])
    return len(found)


def _cells(document: Any, path: Path) -> list[dict[str, Any]]:
    cells = document.get("cells") if isinstance(document, dict) else None
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise MemkitError(f"{path} is not a notebook of format 4")
    return cells


def _style(text: str, document: Any) -> _Style:
    """The way of writing that gives the very text that was read; nbformat's where none does."""
    return next((style for style in _styles(text) if style.dumps(document) == text), _Style())


def _styles(text: str) -> Iterator[_Style]:
    end = text[len(text.rstrip()) :]
    _, broken, second = text.rstrip().partition("\n")
    margin = second[: len(second) - len(second.lstrip())]
    indent = margin if margin.strip(" ") else len(margin) if broken else None
    line = "\r\n" if "\r\n" in text else "\n"
    separators = [(",", ": ")] if broken else [(", ", ": "), (",", ":")]
    for sort_keys, ensure_ascii, between in itertools.product((True, False), (False, True), separators):
        yield _Style(indent, sort_keys, ensure_ascii, end, line, between)


def _replace(path: Path, text: str) -> None:
    """The file is at every moment the old or the new one, with the permissions it had."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise MemkitError(f"{path} cannot be written: {error}") from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(path, name)
        os.replace(name, path)
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise MemkitError(f"{path} cannot be written: {error}") from error
