"""When a picture is taken, what it is sent off with, and what has become of the earlier ones."""

from __future__ import annotations

import logging
import os
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from memkit.config import Settings
from memkit.errors import RescueError
from memkit.lifecycle.rescue import cause, obstacles, rescuing, sets
from memkit.lifecycle.rescue.due import due_in
from memkit.lifecycle.rescue.journal import Doing, Journal
from memkit.lifecycle.rescue.keeping import Keeping
from memkit.lifecycle.rescue.picture import Source
from memkit.lifecycle.rescue.rescuing import Orders
from memkit.lifecycle.rescue.saving import PATIENCE
from memkit.lifecycle.rescue.status import RescueStatus
from memkit.lifecycle.store import lock
from memkit.lifecycle.store.folder import choose_base
from memkit.memory.descendants import private_bytes

if TYPE_CHECKING:
    from memkit.lifecycle.rescue.adoption import Adoption
    from memkit.lifecycle.rescue.child import Reason
    from memkit.lifecycle.store import Store

log = logging.getLogger("memkit")
_REMEMBERED = 50
_FORKING, _NONE = -1, 0


@dataclass(frozen=True, slots=True)
class Kernel:
    """What a rescue must know of its kernel. `source()` is called in the child; `store()` is None before it is used."""

    settings: Settings
    keys: tuple[str, ...]
    source: Callable[[], Source]
    store: Callable[[], Store | None]
    patience: float = PATIENCE


class Rescuer:
    """Takes pictures and gives account of them.

    `take` and `save_now` are for the main thread; `drop` and `close` may be called from any. `tell(pid)` hears of the
    child: -1 while it is being forked, 0 when there is none. `hinders()` may say what is in the way of a picture now.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.tell: Callable[[int], object] = lambda pid: None
        self.hinders: Callable[[], str] = lambda: ""
        self.journal = Journal()
        self.adoptions: list[Adoption] = []
        self.reason = obstacles.lasting(kernel.settings, kernel.keys)
        self._base = Path() if self.reason else choose_base(kernel.settings.store.directory)
        self._keeping = Keeping(self._work)
        self._lock = threading.Lock()  # a shutdown comes in a thread of its own
        self._closed = bool(self.reason)
        self._orders: Orders | None = None
        self._provisional: tuple[Path, int] | None = None
        self._costs: deque[float] = deque(maxlen=_REMEMBERED)
        self._groups = cause.own_groups()
        self._passing = ""
        self._busy: float | None = None  # seconds of processor time that the last picture took
        self._when = 0.0
        self.takes = self.skipped = 0

    # -- taking ------------------------------------------------------------------------------------------------------

    def take(self, *, force: bool = False) -> bool:
        """Take a picture where one is due and nothing is in the way; whether one was taken. Main thread."""
        with self._lock:
            if self._closed or threading.current_thread() is not threading.main_thread():
                return False
            if not force and self.due_in() > 0:
                self.skipped += 1
                return False
            self._passing = obstacles.passing() or self.hinders()
            if self._passing:
                self._let_go()
                return False
            return self._fork()

    def due_in(self) -> float:
        """Seconds until the next picture may be taken, 0 for now."""
        return due_in(self._busy, time.monotonic() - self._when)

    def _fork(self) -> bool:
        self._orders = self._new_orders()
        self.tell(_FORKING)
        try:
            child = self._keeping.take(self._descriptors())
        except OSError as error:
            self._passing = f"the last picture could not be taken: {error.strerror or error}"
            self.skipped += 1
            self.tell(self._keeping.child.pid if self._keeping.child is not None else _NONE)
            return False
        self.tell(child.pid)
        self._costs.append(child.cost)
        self.takes += 1
        self._busy, self._when = child.busy, time.monotonic()
        self._taken()
        return True

    def _new_orders(self) -> Orders:
        settings = self._kernel.settings.guard
        before = cause.counters(self._groups)
        folders = tuple(adoption.folder for adoption in self.adoptions if not adoption.writing)
        return Orders(
            self._base, self._kernel.keys, settings.rescue_max_bytes, self.journal, self._kernel.source, os.getpid(),
            sets.now(), before, folders, self._kernel.patience,
        )  # fmt: skip

    def _descriptors(self) -> list[int]:
        """What keeps others' hands off the files that the child may need."""
        store = self._kernel.store()
        held = list(store.descriptors) if store is not None else []
        return [*held, *(a.lock for a in self.adoptions if a.lock is not None and not a.writing)]

    def _taken(self) -> None:
        """What only an older picture needed can go."""
        store = self._kernel.store()
        if store is not None:
            store.put_off_removals(True)
        self._forget_provisional()
        self.adoptions[:] = [adoption for adoption in self.adoptions if not adoption.forget_spent()]

    def _work(self, reason: Reason, line: int) -> None:
        """In the child."""
        assert self._orders is not None
        rescuing.carry_out(self._orders, reason, line)

    def tidy_up(self) -> None:
        """Clear away rescues that nobody has asked for in time."""
        settings = self._kernel.settings
        sets.sweep(settings.store.directory, settings.guard.rescue_keep, settings.guard.rescue_max_bytes, sets.now())

    # -- letting go --------------------------------------------------------------------------------------------------

    def save_now(self, timeout: float) -> Path:
        """Have the child save the variables and leave, which frees what it holds alone; answers the folder.

        The set counts until another picture is taken. Raises RescueError, and there is no child then either.
        """
        with self._at_once():
            try:
                folder = Path(self._keeping.save_now(timeout))
            finally:
                self._without_child()
            self._forget_provisional()
            fd = lock.take_over(folder)
            if fd is None:
                raise RescueError(f"{folder} is in use by another process")
            self._provisional = (folder, fd)
            return folder

    @contextmanager
    def _at_once(self) -> Iterator[None]:
        """Never waits: the one who asks may be a signal's handler, in the middle of this thread's own `take`."""
        if not self._lock.acquire(blocking=False):
            raise RescueError("a picture is being taken at this very moment")
        try:
            yield
        finally:
            self._lock.release()

    def private_bytes(self) -> int:
        """Memory that the child holds alone and would give back; 0 without one."""
        return private_bytes("/proc", self._keeping.child.pid) if self._keeping.alive() and self._keeping.child else 0

    def drop(self) -> None:
        """End the child: nothing is rescued until the next picture. Raises RescueError while one is being taken."""
        with self._at_once():
            self._let_go()

    def _let_go(self) -> None:
        self._keeping.drop()
        self._without_child()
        self._forget_provisional()

    def _without_child(self) -> None:
        self.tell(_NONE)
        store = self._kernel.store()
        if store is not None:
            store.put_off_removals(False)

    def _forget_provisional(self) -> None:
        if self._provisional is not None:
            (folder, fd), self._provisional = self._provisional, None
            sets.clear(folder)
            os.close(fd)

    def close(self, why: str = "the kernel is ending") -> None:
        """The end was asked for: no child, no early set, and no more pictures. Idempotent; a no-op after a fork."""
        with self._lock:
            if self._orders is not None and self._orders.pid != os.getpid():
                return
            self._closed, self.reason = True, self.reason or why
            self._let_go()
            self._keeping.close()

    def detach(self) -> None:
        """Leave what earlier kernels' rescues still hold where it is."""
        for adoption in self.adoptions:
            adoption.detach()
        self.adoptions.clear()

    def reap(self, timeout: float = 0.0) -> None:
        """Take in the end of the child before this one, whose memory is back only then; waits at most so long."""
        with self._lock:
            self._keeping.reap(timeout)

    # -- knowing -----------------------------------------------------------------------------------------------------

    def says(self, **changes: object) -> None:
        """Note what the kernel does, for the child to read."""
        self.journal.write(replace(self.journal.doing, **changes))  # type: ignore[arg-type]

    @property
    def doing(self) -> Doing:
        return self.journal.doing

    def status(self) -> RescueStatus:
        """What is active now, and what it costs."""
        child = self._keeping.child if self._keeping.alive() else None
        return RescueStatus(
            active=not self._closed,
            reason=self.reason or self._passing,
            child=child.pid if child is not None else None,
            taken=child.taken if child is not None else None,
            last_cost=self._costs[-1] if self._costs else None,
            median_cost=statistics.median(self._costs) if self._costs else None,
            takes=self.takes,
            skipped=self.skipped,
            private=self.private_bytes() if child is not None else None,
            provisional=self._provisional is not None,
        )


def adopt(found: Sequence[sets.Found], make: Callable[[sets.Found], Adoption]) -> list[Adoption]:
    """Take over rescues, the newest first: what an older one says of the same names is out of date."""
    adoptions: list[Adoption] = []
    known: set[str] = set()
    for one in sorted(found, key=lambda one: -one.manifest.died):
        adoption = make(one)
        adoption.begin(known)
        known |= {*one.manifest.saved, *one.manifest.modules, *one.manifest.pending}
        adoptions.append(adoption)
    return adoptions
