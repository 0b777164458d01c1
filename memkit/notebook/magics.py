"""`%memkit`: one magic, many subcommands."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class
from IPython.display import display
from IPython.utils.process import arg_split

from memkit.errors import MemkitError
from memkit.shown import Shown
from memkit.wiring import Session

_QUIET, _OUTPUT, _JSON, _SHOW = ("-q", "--quiet"), ("-o", "--output"), "--json", "--show"
_NAME = re.compile(r"[^\W\d]\w*")


@magics_class
class MemkitMagics(Magics):
    """The magic of one shell, answering for one session."""

    def __init__(self, shell: Any, session: Session) -> None:
        super().__init__(shell)
        self._session = session

    @cell_magic("memkit")
    def memkit_cell(self, line: str, cell: str) -> Shown | None:
        """Run the cell and show what it took: ``%%memkit --help``."""
        from memkit.notebook.accounting import measured

        try:
            return measured.run(self.shell, self._session, line, cell)
        except MemkitError as error:
            raise UsageError(str(error)) from error

    @line_magic
    def memkit(self, line: str) -> Shown | None:
        """Memory of this kernel: what holds it, until when, and how to get it back.

        ``%memkit`` alone shows the status; ``%memkit help`` all subcommands; ``%memkit SUBCOMMAND --help`` one of them.
        Every answer is an object with its figures in bytes. Options of all subcommands: ``-q`` shows nothing,
        ``-o NAME`` keeps the answer in a variable, ``--json [FILE]`` gives it as JSON.
        """
        from memkit.notebook import answers, commands  # 10 ms that a kernel which never asks need not pay at loading

        try:
            words = arg_split(line, posix=True)
            quiet, show = _take_flag(words, _QUIET), _take_flag(words, (_SHOW,))
            variable = _take_value(words, _OUTPUT)
            as_json, file = _take_json(words)
            command = commands.find(words[0] if words else "status")
            answer = command(self._session, words[1:])
            if variable is not None:
                self.shell.user_ns[variable] = answer
            if file:
                answer.save(file)
                answer = answers.Done(f"written to {Path(file).resolve()}")
            elif as_json:
                print(answer.to_json())  # noqa: T201
                return None
            if show and not quiet:
                display(answer)
            return None if quiet or show else answer
        except (MemkitError, OSError, SyntaxError) as error:
            raise UsageError(str(error)) from error


def show_all_answers(tree: Any) -> Any:
    """Have `%memkit` lines in the middle of a cell show their answers too; of its own IPython shows only the last."""
    for statement in getattr(tree, "body", [])[:-1]:
        call = statement.value if isinstance(statement, ast.Expr) else None
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "run_line_magic" and len(call.args) == 2:
            name, line = call.args
            if isinstance(name, ast.Constant) and name.value == "memkit" and isinstance(line, ast.Constant):
                line.value = f"{line.value!s} {_SHOW}"
    return tree


def _take_flag(words: list[str], flags: tuple[str, ...]) -> bool:
    found = [word for word in words if word in flags]
    for word in found:
        words.remove(word)
    return bool(found)


def _take_value(words: list[str], flags: tuple[str, ...]) -> str | None:
    for number, word in enumerate(words):
        if word in flags:
            if number + 1 == len(words) or not _NAME.fullmatch(words[number + 1]):
                raise UsageError(f"{word} needs the name of a variable")
            value = words[number + 1]
            del words[number : number + 2]
            return value
    return None


def _take_json(words: list[str]) -> tuple[bool, str | None]:
    """`--json` alone prints; followed by a file it writes there."""
    if _JSON not in words:
        return False, None
    number = words.index(_JSON)
    follows = number > 0 and number + 1 < len(words) and not words[number + 1].startswith("-")
    file = words[number + 1] if follows else None  # right after %memkit a word is the subcommand
    del words[number : number + (2 if file else 1)]
    return True, file
