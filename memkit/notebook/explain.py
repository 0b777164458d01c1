"""A NameError for a name that memkit moved away or released says so, and how to get it back."""

from __future__ import annotations

import time
from typing import Any

from memkit.wiring import Session

_ERRORS = (NameError, AttributeError)
_MOVES = ("spilled", "compressed", "unloaded")


class Explain:
    """Adds to the message of a NameError (or of an AttributeError on `__main__`) what memkit knows of the name.

    Uses IPython's one slot for such handlers and passes on to whoever had it before.
    """

    def __init__(self, shell: Any, session: Session) -> None:
        self._shell = shell
        self._session = session
        self._before: tuple[Any, Any] | None = None

    def install(self) -> None:
        self._before = (self._shell.custom_exceptions, self._shell.CustomTB)
        self._shell.set_custom_exc((*self._before[0], *_ERRORS), self._handle)
        self._installed = self._shell.CustomTB

    def uninstall(self) -> None:
        if self._before is not None and self._shell.CustomTB == self._installed:
            self._shell.custom_exceptions, self._shell.CustomTB = self._before
        self._before = None

    def _handle(
        self, shell: Any, kind: type, error: BaseException, traceback: Any, tb_offset: int | None = None
    ) -> None:
        """IPython leaves it to the handler to show the error."""
        note = self.note(error)
        if note and note not in str(error):
            error.args = (f"{error} - {note}", *error.args[1:])
        if self._before is not None and self._before[0] and issubclass(kind, self._before[0]):
            self._before[1](kind, error, traceback, tb_offset)
        else:
            shell.showtraceback((kind, error, traceback), tb_offset=tb_offset, running_compiled_code=True)

    def note(self, error: BaseException) -> str:
        """What memkit knows of the name the error is about; empty when that is nothing."""
        name = getattr(error, "name", None)
        asked_elsewhere = isinstance(error, AttributeError) and error.obj is not self._shell.user_module
        if not isinstance(name, str) or asked_elsewhere or not isinstance(error, _ERRORS):
            return ""
        resource = self._session.tracker.find(name)
        if resource is not None and resource.demoted:
            return f"memkit has moved it away ({self._moved(name)}); %memkit restore {name} brings it back"
        stone = self._session.tracker.tombstone(name)
        return "" if stone is None else f"memkit: {stone}"

    def _moved(self, name: str) -> str:
        """When, how and why, from the event log."""
        moves = [event for event in self._session.log if event.name == name and event.kind in _MOVES]
        if not moves:
            return "some time ago"
        last = moves[-1]
        return f"{last.kind} at {time.strftime('%H:%M:%S', time.localtime(last.time))}, {last.reason}"
