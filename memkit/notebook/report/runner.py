"""Runs a notebook in a real kernel with memkit loaded, and writes the report, whatever becomes of the kernel."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from memkit.errors import MemkitError
from memkit.lifecycle.store import sweep_leftovers
from memkit.notebook.report import document
from memkit.notebook.report.execution import Execution, Wish
from memkit.notebook.report.kernel import Start, known
from memkit.notebook.report.page import page
from memkit.notebook.report.result import Progress, ReportResult

_FALLBACK = "python3"


def run(
    notebook: Path,
    output: Path | None = None,
    *,
    timeout: float | None = None,
    interval: float = 0.5,
    allow_errors: bool = False,
    on_progress: Callable[[Progress], object] = lambda progress: None,
) -> ReportResult:
    """Execute a notebook and write an HTML page and the executed notebook beside it; the source is not changed.

    Times in seconds; `timeout` is for each cell. A cell that fails ends the run unless `allow_errors`. A kernel that
    dies, a timeout and Ctrl-C (SIGINT, SIGTERM) end it too: what there is until then is written. Raises NotebookError
    before anything is run. For the main thread; no event loop may run in it.
    """
    nb = document.read(notebook)
    output = document.output_for(notebook, output)
    copy = document.copy_for(notebook, output)
    result = execute(nb, notebook, copy, Wish(timeout, interval, allow_errors), on_progress=on_progress)
    document.save(nb, copy, notebook)
    result = dataclasses.replace(result, output=output)
    document.write(output, page(result, nb))
    return result


def execute(
    nb: Any,
    source: Path,
    copy: Path,
    wish: Wish,
    *,
    start: Start = Start(),  # noqa: B008  frozen
    on_progress: Callable[[Progress], object] = lambda progress: None,
) -> ReportResult:
    """Run the cells of `nb`, which was read from `source`; it gets their outputs and is saved as `copy` after each.

    As `run`, without a page.
    """
    kernel, notes = _kernel_for(nb)
    started = time.time()
    with tempfile.TemporaryDirectory(prefix="memkit-report-") as private:
        execution = Execution(
            nb, source.resolve().parent, Path(private), wish,
            save=lambda: document.save(nb, copy, source), on_progress=on_progress, start=start,
        )  # fmt: skip
        interrupted = _drive(execution, kernel)
        _sweep(execution)
        return ReportResult(
            source=source,
            output=None,
            notebook=copy,
            kernel=kernel,
            started=started,
            seconds=time.time() - started,
            cells=tuple(execution.cells),
            trace=execution.trace,
            death=execution.death,
            interrupted=interrupted,
            notes=(*notes, *execution.notes),
        )


def _sweep(execution: Execution) -> None:
    """Remove what a kernel that was killed had spilled; one that ended has done so itself."""
    try:
        sweep_leftovers(execution.trace.store)
    except (OSError, MemkitError) as error:
        execution.notes.append(f"what a killed kernel left on disk could not be removed: {error}")


def _kernel_for(notebook: Any) -> tuple[str, list[str]]:
    name = notebook.metadata.get("kernelspec", {}).get("name") or _FALLBACK
    if name == _FALLBACK or known(name):
        return name, []
    return _FALLBACK, [f"the kernel {name!r} that the notebook asks for is not installed; {_FALLBACK!r} was used"]


def _drive(execution: Execution, kernel: str) -> bool:
    """Run to the end; True where the user ended it before."""
    try:
        asyncio.run(_until_signalled(execution, kernel))
    except (asyncio.CancelledError, KeyboardInterrupt):
        return True
    return False


async def _until_signalled(execution: Execution, kernel: str) -> None:
    task = asyncio.current_task()
    assert task is not None
    with _signals(task.cancel):
        await execution.run(kernel)


@contextlib.contextmanager
def _signals(callback: Callable[[], object]) -> Iterator[None]:
    """Call back on the first Ctrl-C or termination; later ones find the end under way already."""
    loop = asyncio.get_running_loop()
    told: list[bool] = []

    def once() -> None:
        if not told:
            told.append(True)
            callback()

    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        # On Windows, and outside the main thread: Python's own way, an exception, then does.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            handler = signal.getsignal(number)
            loop.add_signal_handler(number, once)
            before[number] = handler
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
