"""The guard in one shell: told of cells, allowed to free what policies let go of, heard when it refuses."""

from __future__ import annotations

from types import FrameType
from typing import TYPE_CHECKING, Any

from memkit.errors import MemkitError
from memkit.lifecycle.order import at_the_brink
from memkit.memory.guard.guard import Guard
from memkit.notebook.cells import Cells
from memkit.notebook.errorslot import ErrorSlot
from memkit.notebook.rescued import Rescue
from memkit.units import MIB, format_bytes
from memkit.wiring import Session

if TYPE_CHECKING:
    from memkit.memory.guard.libraries import Libraries
    from memkit.memory.guard.starts import Starts
    from memkit.notebook.refusal import Refusal

# The rescue's copy leaves only if it holds this much alone; saving takes a second or two, for which the cell waits.
_WORTH_SAVING = 32 * MIB
_PATIENCE = 10.0
# The watcher has to see in time that a picture takes too much; pages are copied at up to 4 GB/s.
_FOR_A_PICTURE = 128 * MIB
# What the last cell has deleted is in the old picture until that has ended: a tenth of a second for a GiB.
_TO_DIE = 1.0


class Guarding:
    """Puts a guard, the adaptations of libraries and the message of a refusal into a shell, and takes them out.

    The last two are imported when the first cell begins after loading, which they need not slow down.
    """

    def __init__(self, shell: Any, session: Session, cells: Cells, slot: ErrorSlot, rescue: Rescue) -> None:
        self._shell, self._session, self._cells, self._slot, self._rescue = shell, session, cells, slot, rescue
        self.guard = Guard(
            is_user=self._is_user, relieve=self._relieve, user_limit=lambda: session.settings.monitor.limit
        )
        self._refusal: Refusal | None = None
        self._libraries: Libraries | None = None
        self._starts: Starts | None = None

    def install(self) -> None:
        self._session.guard = self.guard
        self._cells.listeners.append(self._on_cell)
        self._cells.first_at_end = self._slot.first = self.guard.relax
        self._cells.sampled_peak = self._sampled_peak
        self._rescue.tell, self._rescue.hinders = self._spare, self._too_little_for_a_picture
        self.guard.on_switch.append(self._switched)
        if self._session.settings.guard.enabled:
            self.guard.start()

    def uninstall(self) -> None:
        self._cells.listeners.remove(self._on_cell)
        self._cells.first_at_end = self._slot.first = _nothing
        self._cells.sampled_peak = None
        self._rescue.tell, self._rescue.hinders = lambda pid: None, lambda: ""
        self.guard.close()
        self._switched(False)
        if self._refusal is not None:
            self._refusal.uninstall()
        self._session.guard = None

    # -- cells ------------------------------------------------------------------------------------------------------

    def _on_cell(self, what: str, item: Any) -> None:
        if what == "cell":
            self._prepare()
            if self._refusal is not None:
                self._refusal.begin()
            if self.guard.page.free < self.guard.page.limit // 4:  # as the watcher last saw it
                self._rescue.settle(_TO_DIE)
            self.guard.begin_cell()
        elif what == "end":
            self.guard.end_cell()

    def _prepare(self) -> None:
        if self._refusal is None:
            from memkit.memory.guard.libraries import Libraries
            from memkit.memory.guard.starts import Starts
            from memkit.notebook.refusal import Refusal

            self._refusal = Refusal(self._shell, self._session, self.guard, self._slot)
            self._refusal.install()
            self._libraries = Libraries()
            self._starts = Starts(self.guard.handler.end_cell_for, self._is_new, self.guard.free)
            self._switched(self.guard.on)

    def _switched(self, on: bool) -> None:
        if self._libraries is None or self._starts is None:
            return
        if on:
            self._libraries.install(self.guard)
            self._starts.install()
        else:
            self._starts.uninstall()
            self._libraries.uninstall()

    def _is_new(self, thread: int | None) -> bool:
        return thread not in self.guard.threads_before

    def _sampled_peak(self) -> int | None:
        """Where the system keeps no exact peak: the highest that the watcher has seen since the cell began."""
        return self.guard.page.peak or None if self.guard.on else None

    def _is_user(self, frame: FrameType) -> bool:
        """Cells, and functions defined in them, have the notebook's names as their globals."""
        return frame.f_globals is self._shell.user_ns

    # -- freeing, before a cell is ended ------------------------------------------------------------------------------

    def _relieve(self, needed: int) -> None:
        """First what policies allow; then the rescue saves what it holds and leaves."""
        enough = self.guard.read().free + needed
        self._session.refresh()
        self._session.reclaimer.free(needed, at_the_brink, reason="a cell needs the memory")
        if self.guard.read().free < enough and self._rescue.private_bytes() >= _WORTH_SAVING:
            self._rescue_leaves()

    def _rescue_leaves(self) -> None:
        try:
            saved = self._rescue.save_now(_PATIENCE)
        except MemkitError:
            saved = False
        if not saved:  # the cell needs the memory more than the kernel needs the picture
            self._rescue.drop()

    def _too_little_for_a_picture(self) -> str:
        """One C call, such as a run of the garbage collector, may change every page, and then each is there twice."""
        if not self.guard.on or self.guard.free() >= _FOR_A_PICTURE:
            return ""
        return f"less than {format_bytes(_FOR_A_PICTURE)} are left: too little for a picture"

    def _spare(self, pid: int) -> None:
        self.guard.page.spared = pid


def _nothing() -> None:
    """What is done first where there is no guard."""
