"""`%%memkit`: has the cell it stands in measured, then shows what it took."""

from __future__ import annotations

import argparse
import contextlib
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.inputtransformer2 import cell_magic, leading_indent
from IPython.display import display

from memkit.errors import MemkitError
from memkit.notebook.accounting import vram
from memkit.notebook.accounting.answer import CellAnswer
from memkit.notebook.answers import Help
from memkit.notebook.commands import _Parser
from memkit.notebook.growth import Growth
from memkit.shown import Shown
from memkit.units import parse_bytes
from memkit.wiring import Session

if TYPE_CHECKING:
    from memkit.notebook.accounting.record import CellRecord
    from memkit.notebook.cells import Cells

# Stands where a magic has its body, when the body is the rest of the cell that the call is in.
THIS_CELL = "# this cell"
_HELP = ("--help", "-h")
_A_PAGE = 4096  # bytes; the result of a cell is often a variable of less, and no news


@dataclass(frozen=True, slots=True)
class Wish:
    """The options of one `%%memkit`; budget in bytes, `json` a file, True for printing, or None."""

    budget: int | None
    top: int
    quiet: bool
    output: str | None
    json: str | bool | None


def unwrap(lines: list[str]) -> list[str]:
    """Turn the `%%memkit` line of a cell into a call and leave the rest as the cell it is, line by line.

    So it runs in the notebook, with its own tracebacks, `await` and the display of its last expression; another cell
    magic may stand in its first line. Called by IPython for each cell, and by `%%time` and others for their bodies.
    """
    name, _, words = lines[0][2:].strip().partition(" ")
    body = lines[1:]
    if name != "memkit" or not "".join(body).strip() or not set(_HELP).isdisjoint(words.split()):
        return lines  # IPython then says what is missing, or calls the magic, which shows its help
    blank = next(number for number, line in enumerate(body) if line.strip())
    rest = cell_magic(unwrap_nested(leading_indent(body[blank:])))
    return [f"get_ipython().run_cell_magic('memkit', {words.strip()!r}, {THIS_CELL!r})\n", *body[:blank], *rest]


def unwrap_nested(lines: list[str]) -> list[str]:
    """The same for a body that begins with `%%memkit` again."""
    return unwrap(lines) if lines[0].startswith("%%memkit") else lines


def run(shell: Any, session: Session, line: str, body: str) -> Shown | None:
    """The magic itself; raises UsageError or a MemkitError, and then the rest of the cell is not run."""
    words = _split(line)
    if not set(_HELP).isdisjoint(words):
        return Help(_parser().format_help().strip())
    begin(shell, session, _wish(words))
    if body != THIS_CELL:  # called by a program, with a body that no cell has been made of
        shell.run_cell(body)
    return None


def begin(shell: Any, session: Session, wish: Wish) -> None:
    """Measure the cell that runs in this thread from here to its end, and show the answer then."""
    from memkit.notebook import extension

    loaded = extension.loaded(shell)
    scope = None if loaded is None else loaded.cells.running.current()
    if loaded is None or scope is None or scope.info is None:
        raise UsageError("%%memkit measures the cell it stands in; no cell runs here")
    cells: Cells = loaded.cells
    vram.restart()
    growth = Growth.begin(session.space.variables)
    if wish.budget is not None:
        ending = contextlib.ExitStack()
        ending.enter_context(session.budget(wish.budget))
        scope.on_end.append(ending.close)
    scope.on_record.append(lambda record: _tell(shell, wish, record, growth))
    cells.measure(scope)


def _tell(shell: Any, wish: Wish, record: CellRecord, growth: Growth) -> None:
    biggest = growth.biggest(count=wish.top) if wish.top > 0 else ()
    answer = CellAnswer(record, wish.budget, tuple(one for one in biggest if one.size >= _A_PAGE))
    if wish.output is not None:
        shell.user_ns[wish.output] = answer
    try:
        if isinstance(wish.json, str):
            answer.save(wish.json)
    except OSError as error:  # the cell is over: an error can only be told
        print(f"%%memkit: the answer could not be written: {error}")  # noqa: T201
    if wish.json is True:
        print(answer.to_json())  # noqa: T201
    elif not wish.quiet:
        display(answer)


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise UsageError(f"%%memkit: {error}") from error


def _wish(words: list[str]) -> Wish:
    options = _parser().parse_args(words)
    if options.output is not None and not options.output.isidentifier():
        raise UsageError(f"{options.output!r} is no name of a variable")
    try:
        budget = None if options.budget is None else parse_bytes(options.budget)
    except MemkitError as error:
        raise UsageError(f"%%memkit: {error}") from error
    return Wish(budget, options.top, options.quiet, options.output, options.json)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="%%memkit", description=_DESCRIPTION, add_help=False)
    parser.add_argument("--budget", "-b", metavar="SIZE", help="end the cell where it needs more than this: 1GiB")
    parser.add_argument("--top", "-n", type=int, default=3, metavar="N", help="how many variables (default 3)")
    parser.add_argument("--quiet", "-q", action="store_true", help="show nothing")
    parser.add_argument("--output", "-o", metavar="NAME", help="keep the answer in a variable")
    parser.add_argument("--json", nargs="?", const=True, metavar="FILE", help="as JSON, printed or into a file")
    parser.add_argument("--help", "-h", action="store_true", help="show this help")
    return parser


_DESCRIPTION = """Run the cell and show its exact peak above the beginning, what it keeps (delta) and gave back (freed),
time, garbage collection, and the biggest variables it has made. torch's own peak of GPU memory begins anew."""
