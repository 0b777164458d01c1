"""A NameError for a name that memkit moved away or released says so, and how to get it back."""

from __future__ import annotations

import time
from typing import Any

from memkit.notebook.errorslot import ErrorSlot
from memkit.wiring import Session

_ERRORS = (NameError, AttributeError)
_MOVES = ("spilled", "compressed", "unloaded")


class Explain:
    """Adds to the message of a NameError (or of an AttributeError on `__main__`) what memkit knows of the name."""

    def __init__(self, shell: Any, session: Session, slot: ErrorSlot | None = None) -> None:
        self._shell = shell
        self._session = session
        self._slot = ErrorSlot(shell) if slot is None else slot
        self._slot.add(_ERRORS, self._explain)

    def install(self) -> None:
        self._slot.install()

    def uninstall(self) -> None:
        self._slot.uninstall()

    def _explain(self, kind: type, error: BaseException, traceback: Any, tb_offset: Any) -> BaseException:
        note = self.note(error)
        if note and note not in str(error):
            error.args = (f"{error} - {note}", *error.args[1:])
        return error

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
