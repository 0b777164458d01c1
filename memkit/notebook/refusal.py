"""What a cell that ran out of memory ends with: one message that names what grew and the ways on, and no traceback.

IPython formats a traceback twice, for the reader and for its history, which after a deep recursion takes half a minute;
and keeps it, with all that its frames hold, until the next error.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from typing import Any, Protocol

from memkit.errors import MemkitError, MemoryGuardError, MemoryGuardInterrupt
from memkit.lifecycle.reports import Report
from memkit.memory import heap
from memkit.memory.guard.gate import Gate
from memkit.memory.guard.translate import asked_for, out_of_memory
from memkit.notebook import aftermath
from memkit.notebook.errorslot import ErrorSlot, handled
from memkit.notebook.growth import Grown, Growth
from memkit.notebook.refusal_text import Told, text_of
from memkit.units import MIB
from memkit.wiring import Session

log = logging.getLogger("memkit")

_ENDS = (MemoryError, RuntimeError, OSError, ImportError, ValueError, SystemError, MemoryGuardInterrupt)
_LIBRARIES = (("zlib", "error"), ("sqlite3", "Error"))  # no kinds of the above
_MARGIN = 128 * MIB  # what a cell needs besides, so that running it again does not end as before
_OURS = (MemoryGuardError, MemoryGuardInterrupt)  # before these the guard has already freed what it may


class Refused(Protocol):
    """What the guard knows of a cell it ends: bytes free, of which limit, grown by, allocated and not yet touched."""

    free: int
    limit: int
    grown: int
    promised: int
    budget: int | None
    reason: str


class Guard(Gate, Protocol):
    """The gate, and what it says of the cell that has run out of memory."""

    @property
    def on(self) -> bool:
        """Whether cells are guarded."""

    def refusal(self) -> Any:
        """A `Refused`, or None where memory cannot be read."""


class Refusal:
    """Shows errors of every library that mean "out of memory" as one; passes on all others, and all with the guard off.

    Whether raised by a cell, inside a magic that shows errors by itself (`%%time`), or by a widget's callback.
    """

    def __init__(self, shell: Any, session: Session, guard: Guard, slot: ErrorSlot) -> None:
        self._shell = shell
        self._session = session
        self._guard = guard
        self._local = threading.local()  # subshells run cells in threads of their own
        self._show: Callable[..., Any] | None = None
        slot.add((*_ENDS, *_of_libraries()), self._on_error)

    def install(self) -> None:
        """Idempotent. The error slot is installed by whoever made it."""
        if self._show is None:
            self._show = self._shell.showtraceback
            self._shell.showtraceback = self._showtraceback

    def uninstall(self) -> None:
        """Idempotent; if somebody else has replaced `showtraceback` since, that stays."""
        if self._shell.__dict__.get("showtraceback") == self._showtraceback:
            del self._shell.showtraceback
        self._show = None

    def begin(self) -> None:
        """A cell begins in this thread; 0.2 ms."""
        self._local.growth = Growth.begin(self._shell.user_ns) if self._guard.on else None

    def _showtraceback(self, exc_tuple: Any = None, *args: Any, **options: Any) -> Any:
        kind, error, traceback = exc_tuple or sys.exc_info()
        if kind is not None and error is not None and handled(self._on_error, error, traceback, None) is None:
            return None
        show = self._show or type(self._shell).showtraceback.__get__(self._shell)
        return show(exc_tuple, *args, **options)

    def _on_error(self, kind: type, error: BaseException, traceback: Any, tb_offset: Any) -> BaseException | None:
        if not self._guard.on or not (isinstance(error, MemoryGuardInterrupt) or out_of_memory(error)):
            return error
        with self._guard.lifted():
            text = text_of(self._tell(error, traceback), self._shell)
            told = MemoryGuardError(text)
            lines = _coloured(text, self._shell).splitlines()
            told._render_traceback_ = lambda: lines  # type: ignore[attr-defined]  # IPython's protocol
            aftermath.remember(self._shell, told)
            self._shell._showtraceback(MemoryGuardError, told, lines)
        return None

    def _tell(self, error: BaseException, traceback: Any) -> Told:
        """Read what is to be read, then let go, then see whether freeing would help."""
        variables = self._shell.user_ns
        refused = self._guard.refusal()
        trail = aftermath.trail(traceback)
        places = aftermath.places(trail, variables)
        growing = self._growing(aftermath.frames(trail))
        del trail
        wanted, foreign = asked_for(error), not isinstance(error, _OURS)
        aftermath.let_go(error, traceback)
        heap.trim()
        missing = self._missing(wanted, refused)
        freed = self._reclaim(missing) if foreign and wanted is not None and missing > 0 else None
        offered = 0 if freed is not None else self._could_free(missing)
        return Told(error, refused, growing, places, wanted, freed, offered)

    def _growing(self, frames: Any) -> tuple[Grown, ...]:
        growth: Growth | None = getattr(self._local, "growth", None)
        return () if growth is None else growth.biggest(frames=frames)

    def _missing(self, wanted: int | None, refused: Any) -> int:
        """Bytes to be freed before the cell could go on; a guess where the error does not name what it wanted."""
        grown = max(0, refused.grown) if refused is not None else 0
        return (grown if wanted is None else wanted) + _MARGIN - self._guard.free()

    def _reclaim(self, missing: int) -> Report | None:
        """After an allocation failed: free what was missing, if policies allow that much; else leave all as it is."""
        try:
            if self._could_free(missing) >= missing:
                report = self._session.reclaim(missing)
                return report if isinstance(report, Report) and report.measured >= missing else None
        except MemkitError as error:
            log.warning("memkit: nothing could be freed for the cell: %s", error)
        return None

    def _could_free(self, missing: int) -> int:
        """How much of what is missing policies would let go of."""
        try:
            return min(missing, int(self._session.reclaim(missing, dry_run=True).expected)) if missing > 0 else 0
        except MemkitError:
            return 0


def _of_libraries() -> list[type[BaseException]]:
    """Those that are loaded, as both are in a kernel."""
    found = [getattr(sys.modules.get(library), name, None) for library, name in _LIBRARIES]
    return [kind for kind in found if isinstance(kind, type) and issubclass(kind, BaseException)]


def _coloured(text: str, shell: Any) -> str:
    name = MemoryGuardError.__name__
    plain = str(getattr(shell, "colors", "")).lower() == "nocolor"
    return f"{name}: {text}" if plain else f"\x1b[31m{name}\x1b[39m: {text}"
