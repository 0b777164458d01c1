"""``python -m memkit report``: progress on the terminal while a notebook runs, then where the report is."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TextIO

from memkit.errors import MemkitError
from memkit.notebook.report.result import BAD_INPUT, INTERRUPTED, CellRun, Progress, ReportResult
from memkit.notebook.report.summary import Summary
from memkit.units import format_bytes

_ERASE = "\r\x1b[K"


class Terminal:
    """One line for each cell: rewritten in place on a terminal, written once at its end anywhere else."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty()

    def progress(self, progress: Progress) -> None:
        """Show how far a run is."""
        if not progress.running:
            self._write(f"{_ERASE if self._live else ''}{self._line(progress)}\n")
        elif self._live:
            self._write(_ERASE + self._line(progress))

    def lines(self, *lines: str) -> None:
        """Lines of their own, below whatever cell was under way."""
        self._write((_ERASE if self._live else "") + "".join(f"{line}\n" for line in lines))

    def _line(self, progress: Progress) -> str:
        cell, width = progress.cell, len(str(progress.total))
        figures = f"{progress.seconds:8.1f} s  {format_bytes(progress.peak):>10}  "
        figures += f"{format_bytes(progress.delta, signed=True):>11}"
        columns = shutil.get_terminal_size().columns if self._live else 100
        room = max(12, columns - len(figures) - 2 * width - 5)
        source = cell.title if len(cell.title) <= room else cell.title[: room - 1] + "…"
        line = f"{cell.number:{width}}/{progress.total}  {source:<{room}}{figures}"
        return line if progress.running or cell.state == "done" else f"{line}  {_trouble(cell)}"

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def _trouble(cell: CellRun) -> str:
    return f"{cell.state} ({cell.error})" if cell.error else cell.state


def report_command(options: argparse.Namespace) -> int:
    """Run a notebook and write its report; the exit code is 0, 1 where a cell failed, 2 for an input that cannot be
    used, 3 where the kernel died, 130 where it was interrupted."""
    terminal, errors = Terminal(sys.stdout), Terminal(sys.stderr)
    try:
        check(options)
        from memkit.notebook.report.runner import run

        result = run(
            Path(options.notebook),
            None if options.output is None else Path(options.output),
            timeout=options.timeout,
            interval=options.interval,
            allow_errors=options.allow_errors,
            on_progress=terminal.progress,
        )
    except (MemkitError, OSError) as error:
        errors.lines(f"memkit report: {error}")
        return BAD_INPUT
    except KeyboardInterrupt:  # while nothing runs: before the kernel, or while the page is made
        errors.lines("memkit report: interrupted; no report was written")
        return INTERRUPTED
    terminal.lines(*_closing(result))
    return result.exit_code


def check(options: argparse.Namespace) -> None:
    """Raise MemkitError for a timeout or an interval out of range."""
    if options.timeout is not None and not options.timeout > 0:
        raise MemkitError(f"--timeout is {options.timeout:g}; it must be more than 0 seconds")
    if not 0.01 <= options.interval <= 3600:
        raise MemkitError(f"--interval is {options.interval:g}; it must be between 0.01 and 3600 seconds")


def _closing(result: ReportResult) -> list[str]:
    """What became of it, where the report is, and what was measured, in five lines."""
    lines = [""]
    if result.death is not None:
        where = f" in cell {result.death.cell.number}" if result.death.cell else ""
        lines.append(f"the kernel died{where}: {result.death.cause}")
    if result.interrupted:
        lines.append("interrupted")
    lines.extend(result.notes)
    if result.output is not None:
        lines.append(f"report: {result.output.resolve()}")
    return [*lines, *(f"  {name:<7}{text}" for name, text in Summary.of(result).lines())]
