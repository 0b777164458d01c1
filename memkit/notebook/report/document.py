"""The notebook as a file: read, copied, saved while it runs, and never overwritten where it is the user's."""

from __future__ import annotations

import itertools
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

from memkit.errors import MemkitError
from memkit.notebook.report.recorder import title
from memkit.notebook.report.result import CellRun

_MARK = "memkit_report"  # in the metadata of copies: what has it is ours to overwrite
_SKIP = "skip-execution"  # the tag that nbclient, nbconvert and Jupyter Book understand


class NotebookError(MemkitError):
    """The notebook or the place for its report cannot be used; nothing was run."""


def read(path: Path) -> Any:
    """The notebook without outputs and with cell ids; raises NotebookError in one line."""
    import nbformat

    if path.is_dir():
        raise NotebookError(f"{path} is a folder, not a notebook")
    try:
        with warnings.catch_warnings():  # cells of older notebooks have no ids; they get some below
            warnings.simplefilter("ignore")
            notebook = nbformat.read(path, as_version=4)
            _, notebook = nbformat.validator.normalize(notebook)
            nbformat.validate(notebook)
    except FileNotFoundError:
        raise NotebookError(f"there is no notebook {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise NotebookError(f"{path} cannot be read: {error}") from None
    except Exception as error:  # noqa: BLE001  nbformat raises what its version and the file make it raise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise NotebookError(f"{path} is not a valid notebook: {reason[0][:200]}") from None
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def cells_to_run(notebook: Any) -> list[CellRun]:
    """The code cells that have something to run, in order."""
    chosen = [
        (index, cell)
        for index, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and cell.source.strip() and _SKIP not in cell.metadata.get("tags", [])
    ]
    return [CellRun(index, number, title(cell.source)) for number, (index, cell) in enumerate(chosen, 1)]


def coalesce(cell: Any) -> None:
    """Join neighbouring pieces of one stream, which nbclient does only for cells that came to an end."""
    joined: list[Any] = []
    for output in cell.outputs:
        last = joined[-1] if joined else None
        if last is not None and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            joined.append(output)
    cell.outputs = joined


def output_for(source: Path, output: Path | None) -> Path:
    """Where the page goes: beside the notebook unless told; raises NotebookError where nothing can be written."""
    output = source.with_suffix(".html") if output is None else output
    writable(source, output, "the report", "the HTML file")
    return output


def writable(source: Path, output: Path, what: str, file: str) -> None:
    """Make the folder of a file to be written; raises NotebookError where that cannot be, or would take the source."""
    if output.is_dir():
        raise NotebookError(f"{output} is a folder; name {file} to write")
    if output.exists() and source.exists() and output.samefile(source):
        raise NotebookError(f"{output} is the notebook itself; name another file for {what}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=output.parent, prefix=".memkit-")
        os.close(descriptor)
        os.unlink(name)
    except OSError as error:
        raise NotebookError(f"{what} cannot be written to {output.parent}: {error.strerror}") from None


def copy_for(source: Path, output: Path) -> Path:
    """Where the executed notebook goes: beside the page."""
    return free(source, output, ("", ".executed"))


def free(source: Path, beside: Path, endings: tuple[str, ...]) -> Path:
    """The first name with one of the endings, then with a number after the last of them, that takes neither the source
    nor any notebook that is not a copy made here."""
    numbered = (f"{endings[-1]}-{number}" for number in itertools.count(2))
    for ending in itertools.chain(endings, numbered):
        path = beside.with_name(f"{beside.stem}{ending}.ipynb")
        if not path.exists() or (not path.samefile(source) and _is_copy(path)):
            return path
    raise AssertionError("unreachable")


def _is_copy(path: Path) -> bool:
    try:
        return f'"{_MARK}"' in path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def save(notebook: Any, path: Path, source: Path) -> None:
    """Write the executed notebook."""
    import nbformat

    notebook.metadata[_MARK] = {"source": source.name}
    with warnings.catch_warnings():  # an output that is not valid is the notebook's doing; it is saved as it is
        warnings.simplefilter("ignore")
        text = nbformat.writes(notebook)
    write(path, text + "\n")


def write(path: Path, text: str) -> None:
    """Write a whole file or leave the one before; raises OSError."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o666 & ~_umask())  # as any new file; a temporary one is private
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
