"""``python -m memkit run``: a notebook as on a machine with less memory, on the terminal."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memkit.errors import LimitError, MemkitError
from memkit.memory.sample import Reader, Sample
from memkit.notebook.limited.choice import choose, limits
from memkit.notebook.limited.closing import closing, fit_closing, opening, step_line
from memkit.notebook.limited.fitting import Fitting
from memkit.notebook.limited.outcome import Outcome
from memkit.notebook.limited.sized import Job, idle, keep, run_at, too_small
from memkit.notebook.report import document
from memkit.notebook.report.command import Terminal, check
from memkit.notebook.report.execution import Wish
from memkit.notebook.report.result import BAD_INPUT, CELL_FAILED, INTERRUPTED, OK
from memkit.units import MIB, format_bytes, parse_bytes

_ENDING = ".run"


def run_command(options: argparse.Namespace) -> int:
    """Run a notebook in a box; the exit code is 0, 1 where a cell failed (--fit: where nothing completes), 2 for an
    input or a limit that cannot be used, 3 where the kernel died, 130 where it was interrupted."""
    terminal, errors = Terminal(sys.stdout), Terminal(sys.stderr)
    try:
        with _terminated_as_interrupted():
            return _run(options, terminal)
    except (MemkitError, OSError) as error:
        errors.lines(f"memkit run: {' '.join(str(error).split())}")
        return BAD_INPUT
    except KeyboardInterrupt:  # while no cell runs
        errors.lines("memkit run: interrupted")
        return INTERRUPTED


def _run(options: argparse.Namespace, terminal: Terminal) -> int:
    check(options)
    here = _here()
    size = _size(options, here.limit)
    document.read(Path(options.notebook))
    copy, html = _places(options)
    choice = choose(limits(options.method))
    wish = Wish(options.timeout, options.interval, options.allow_errors, not options.no_memkit)
    job = Job(Path(options.notebook), copy, wish, choice.limit)
    terminal.lines(*opening(choice, None if options.fit else size, options.method))
    if options.fit:
        return _fit(job, size or here.available // MIB * MIB, html, terminal)
    assert size is not None
    return _once(job, size, here.available, html, terminal)


def _once(job: Job, size: int, most: int, html: Path | None, terminal: Terminal) -> int:
    outcome, notebook = run_at(job, size, terminal.progress)
    if not outcome.began and not outcome.result.interrupted:
        alone = idle(job, max(size, most))
        if alone.began:  # else it is not the size that keeps it from starting
            raise too_small(size, alone)
    keep(job, outcome, notebook)
    outcome = _with_page(outcome, notebook, html)
    terminal.lines(*closing(outcome))
    return outcome.result.exit_code


def _fit(job: Job, upper: int, html: Path | None, terminal: Terminal) -> int:
    fitting = Fitting(
        job,
        upper,
        on_step=lambda number, step, seconds: terminal.lines(step_line(number, step, seconds)),
        on_progress=lambda progress: terminal.progress(dataclasses.replace(progress, running=True)),
    )
    fit = fitting.run(lambda lower: terminal.lines(f"a kernel that runs nothing needs {format_bytes(lower)}"))
    shown = _with_page(*fitting.best, html) if fitting.best else None
    terminal.lines(*fit_closing(fit, shown))
    if fitting.interrupted:
        terminal.lines("interrupted")
        return INTERRUPTED
    return CELL_FAILED if fit.smallest is None else OK


def _with_page(outcome: Outcome, notebook: Any, html: Path | None) -> Outcome:
    if html is None:
        return outcome
    from memkit.notebook.report.page import page  # draws with matplotlib

    told = f"run as on a machine with {format_bytes(outcome.size)} of memory, held by {outcome.method}"
    result = outcome.result
    shown = dataclasses.replace(result, output=html, notes=(told, *result.notes, *outcome.notes))
    document.write(html, page(shown, notebook))
    return dataclasses.replace(outcome, result=dataclasses.replace(result, output=html))


def _here() -> Sample:
    reader = Reader()
    try:
        return reader()
    finally:
        reader.close()


def _size(options: argparse.Namespace, machine: int) -> int | None:
    """The size asked for, in bytes; raises UnitError and LimitError."""
    if options.memory is None:
        if not options.fit:
            raise LimitError("say how much memory the notebook is to have, such as --memory 4GiB, or --fit")
        return None
    size = parse_bytes(options.memory)
    if size < MIB:
        raise LimitError(f"--memory {options.memory} is {format_bytes(size)}; no kernel runs in that. Write it as 4GiB")
    if size > machine:
        raise LimitError(f"{format_bytes(size)} cannot be had: there are only {format_bytes(machine)} here")
    return size


def _places(options: argparse.Namespace) -> tuple[Path, Path | None]:
    """Where the executed notebook and the page go; raises NotebookError where that cannot be."""
    source = Path(options.notebook)
    output = document.free(source, source, (_ENDING,)) if options.output is None else Path(options.output)
    html = None if options.html is None else Path(options.html)
    document.writable(source, output, "the executed notebook", "the file")
    if html is not None:
        document.writable(source, html, "the report", "the HTML file")
        if html.resolve() == output.resolve():
            raise LimitError(f"the executed notebook and the report cannot both be {html}")
    return output, html


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM and a closed terminal end a run as Ctrl-C does, so that nothing stays behind."""
    names = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in names}
    # What is ignored (nohup) stays so.
    changed = [number for number in names if before[number] == signal.SIG_DFL]
    for number in changed:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)
