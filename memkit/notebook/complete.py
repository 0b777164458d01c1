"""Tab completion after `%memkit`: subcommands, options, names, types."""

from __future__ import annotations

import re
from typing import Any

from IPython.core.completer import SimpleCompletion, context_matcher

from memkit.wiring import Session

_LINE = re.compile(r"^\s*%%?memkit\s+(?P<text>.*)$")


class Completion:
    """A matcher for one shell's completer."""

    def __init__(self, shell: Any, session: Session) -> None:
        self._shell = shell
        self._session = session
        self._matcher = self._make()

    def install(self) -> None:
        self._shell.Completer.custom_matchers.append(self._matcher)

    def uninstall(self) -> None:
        if self._matcher in self._shell.Completer.custom_matchers:
            self._shell.Completer.custom_matchers.remove(self._matcher)

    def _make(self) -> Any:
        @context_matcher()
        def memkit_matcher(context: Any) -> dict[str, Any]:
            line = _LINE.match(context.line_with_cursor[: context.cursor_position])
            if line is None:
                return {"completions": []}
            return {"completions": [SimpleCompletion(word) for word in self.words(line["text"])], "suppress": True}

        return memkit_matcher

    def words(self, text: str) -> list[str]:
        """What may stand where the text ends."""
        from memkit.notebook.commands import COMMANDS

        parts = text.split(" ")
        command, last = parts[0], parts[-1]
        if len(parts) == 1:
            return sorted(name for name in COMMANDS if name.startswith(last))
        if command not in COMMANDS:
            return []
        if len(parts) > 2 and parts[-2] in ("--type", "-t"):
            options = list(self._session.settings.types)
        elif last.startswith("-"):
            options = COMMANDS[command].options()
        else:
            options = COMMANDS[command].names(self._session)
        return sorted(word for word in options if word.startswith(last))
