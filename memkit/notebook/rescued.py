"""The rescue in one shell: a picture of the variables when the kernel is idle, and those of the kernel before.

Nothing is imported for it while memkit is being loaded: that, and the first picture, come when the kernel is idle.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import dataclasses
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from memkit.errors import DemotionError, RescueError

if TYPE_CHECKING:
    from memkit.lifecycle.rescue.adoption import Adoption
    from memkit.lifecycle.rescue.home import Home
    from memkit.lifecycle.rescue.picture import Source
    from memkit.lifecycle.rescue.rescuer import Rescuer
    from memkit.lifecycle.rescue.status import RescueStatus
    from memkit.memory.subscribers import Notice
    from memkit.notebook.cells import Cells

log = logging.getLogger("memkit")

_IDLE = 0.05  # seconds: a Run all does not wait that long between two cells
_MARK = "__memkit_rescue__"  # among IPython's hidden names, which only a reset of the namespace clears


class Rescue:
    """Installs itself into one shell. Whatever goes wrong in it costs the rescue, never a cell.

    `tell(pid)` hears of the child: -1 while it is being forked, 0 when there is none. `hinders()` may say what is in
    the way of a picture now.
    """

    def __init__(self, shell: Any, session: Any, cells: Cells) -> None:
        self._shell, self._session, self._cells = shell, session, cells
        self._rescuer: Rescuer | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._stale = True
        self._running = 0
        self._off = "" if self._application is not None else "this is no Jupyter kernel"
        self._asked = False  # for although the settings say no
        self.tell: Callable[[int], object] = lambda pid: None
        self.hinders: Callable[[], str] = lambda: ""
        self._shutdown: Any = None
        self._journal_lock = threading.Lock()  # cells write from one thread, readings come from another

    # -- life --------------------------------------------------------------------------------------------------------

    def install(self) -> None:
        """Begin to listen; the first picture is taken when the kernel has become idle."""
        if not self._session.settings.guard.rescue:
            self._off = "switched off (guard.rescue)"
        self._session.rescue = self
        self._cells.listeners.insert(0, self._on_cell)  # before the guard measures what is left
        self._shell.user_ns_hidden[_MARK] = True
        self._unsubscribe = self._session.monitor.subscribe(self._on_sample, on="sample")
        kernel = getattr(self._shell, "kernel", None)
        if kernel is not None:
            self._shutdown = kernel.do_shutdown
            kernel.do_shutdown = self._do_shutdown
        atexit.register(self._at_exit)
        self._take_when_idle()

    def uninstall(self) -> None:
        """End the child and stop listening; what the kernel before left stays on disk for the next."""
        self.close("memkit was unloaded")
        if self._rescuer is not None:
            self._rescuer.detach()
        atexit.unregister(self._at_exit)
        self._unsubscribe()
        self._cells.listeners.remove(self._on_cell)
        self._shell.user_ns_hidden.pop(_MARK, None)
        kernel = getattr(self._shell, "kernel", None)
        if kernel is not None and kernel.__dict__.get("do_shutdown") == self._do_shutdown:
            del kernel.do_shutdown
        self._session.rescue = None

    def _do_shutdown(self, restart: bool) -> Any:
        """An end or a restart that was asked for is no death. Comes in the thread of the control channel."""
        self.close("the kernel was asked to end")
        return self._shutdown(restart)

    def _at_exit(self) -> None:
        """`exit` was typed; or the kernel's own loop has failed, which nobody asked for: that is a death."""
        if getattr(self._shell, "exit_now", False) or self._off:
            self.close()

    def close(self, why: str = "the kernel is ending") -> None:
        """Take no more pictures, and let go of the last; a no-op in a forked child."""
        self._off = self._off or why
        if self._rescuer is not None:
            self._rescuer.close(why)

    @property
    def rescuer(self) -> Rescuer:
        """Made, and all it needs imported, when it is first asked for."""
        if self._rescuer is None:
            from memkit.lifecycle.rescue import rescuing
            from memkit.lifecycle.rescue.rescuer import Kernel, Rescuer

            rescuing.prepare()
            session, settings = self._session, self._session.settings
            if self._asked:
                settings = dataclasses.replace(settings, guard=dataclasses.replace(settings.guard, rescue=True))
            self._rescuer = Rescuer(Kernel(settings, self._keys(), self._source, lambda: session._store))
            self._rescuer.tell = lambda pid: self.tell(pid)
            self._rescuer.hinders = lambda: self.hinders()
            if self._off:
                self._rescuer.close(self._off)
            self._rescuer.tidy_up()
        return self._rescuer

    def _keys(self) -> tuple[str, ...]:
        from memkit.lifecycle.rescue.keys import keys

        return keys(getattr(self._application, "connection_file", None), os.environ)

    @property
    def _application(self) -> Any:
        return getattr(getattr(self._shell, "kernel", None), "parent", None)

    def _source(self) -> Source:
        """What there is to be saved; asked in the child."""
        from memkit.lifecycle.rescue.picture import Source

        shell, session = self._shell, self._session
        kernel = getattr(shell, "kernel", None)
        stops = tuple(stop for stop in (shell, kernel, session, shell.user_ns, shell.user_module) if stop is not None)
        resources = session.tracker.resources()
        return Source(dict(self._variables()), shell.user_ns, resources, session._store, session, stops)

    def _variables(self) -> Iterator[tuple[str, Any]]:
        hidden = self._shell.user_ns_hidden
        for name, value in list(self._shell.user_ns.items()):
            if not name.startswith("_") and hidden.get(name, self) is not value:
                yield name, value

    # -- around cells ------------------------------------------------------------------------------------------------

    def _on_cell(self, what: str, scope: Any) -> None:
        if what not in ("cell", "end") or threading.current_thread() is not threading.main_thread():
            return
        if what == "cell":
            if self._running == 0:
                self._begin(scope)
            self._running += 1
        else:
            self._running = max(0, self._running - 1)
            if self._running == 0:
                self._end(scope)

    def _begin(self, scope: Any) -> None:
        self._not_now()
        if self._stale:
            self._take()
        if self._rescuer is not None:
            for adoption in self._rescuer.adoptions:
                adoption.refresh()
            self._rescuer.reap()
            from memkit.lifecycle.rescue.journal import first_line

            count = self._shell.execution_count
            self._say(cell=count, line=first_line(scope.source or ""), running=True)

    def _end(self, scope: Any) -> None:
        self._stale = True
        if self._rescuer is not None:
            self._say(running=False, rss=scope.end.rss if scope.end is not None else None, peak=scope.peak)
        self._take_when_idle()

    def _say(self, **changes: object) -> None:
        with self._journal_lock:
            if self._rescuer is not None:
                self._rescuer.says(**changes)

    def _on_sample(self, notice: Notice) -> None:
        sample = notice.sample
        if sample is not None and self._rescuer is not None:
            self._say(rss=sample.rss, peak=sample.peak, limit=sample.limit, available=sample.available)

    # -- taking ------------------------------------------------------------------------------------------------------

    def _take_when_idle(self, after: float = 0.0) -> None:
        self._not_now()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # a terminal, or a subshell: the next cell's beginning will do
            return
        if not self._off:
            self._idle = loop.call_later(max(_IDLE, after), self._now_idle)

    def _not_now(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _now_idle(self) -> None:
        self._idle = None
        if self._running == 0 and self._stale:
            self._take()
            if self._stale and self._rescuer is not None and (after := self._rescuer.due_in()):
                self._take_when_idle(after)

    def _take(self) -> None:
        if self._off:
            return
        for adoption in self.adoptions:
            adoption.settle()
        was_reset = _MARK not in self._shell.user_ns_hidden
        self._shell.user_ns_hidden[_MARK] = True
        try:
            self._stale = not self.rescuer.take(force=was_reset)
        except Exception:
            log.exception("memkit: no picture of the variables could be taken; the rescue is off")
            self.close("it failed; see the log")

    # -- what others ask ---------------------------------------------------------------------------------------------

    def save_now(self, timeout: float) -> bool:
        """Under pressure: the child saves the variables and leaves; whether it did. The next cell's end takes anew."""
        if self._rescuer is None:
            return False
        try:
            self._rescuer.save_now(timeout)
        except RescueError as error:
            log.info("memkit: %s", error)
            return False
        return True

    def settle(self, timeout: float) -> None:
        """Wait until the memory of the picture before this one is back."""
        if self._rescuer is not None:
            self._rescuer.reap(timeout)

    def private_bytes(self) -> int:
        """Bytes that the child holds alone: what `save_now` or `drop` would give back."""
        return self._rescuer.private_bytes() if self._rescuer is not None else 0

    def drop(self) -> None:
        """End the child at once, unsaved; the next picture is taken when it is due."""
        if self._rescuer is not None:
            with contextlib.suppress(RescueError):  # one is being taken: there is nothing to gain
                self._rescuer.drop()

    def on(self) -> None:
        """Take pictures again."""
        if self._off:
            self._off, self._asked = "", True
            adoptions, self._rescuer = self.adoptions, None
            self.rescuer.adoptions[:] = adoptions
        self._stale = True
        self._take_when_idle()

    def off(self) -> None:
        """No pictures until `on`."""
        self._not_now()
        self.close("switched off by you")

    def status(self) -> RescueStatus:
        """What is active now, and what it costs."""
        return self.rescuer.status()

    @property
    def adoptions(self) -> list[Adoption]:
        """Rescues of earlier kernels that still hold variables."""
        return self._rescuer.adoptions if self._rescuer is not None else []

    # -- the kernel before -------------------------------------------------------------------------------------------

    def greet(self) -> str:
        """Take over what a dead kernel left and say what happened; empty, after one listing, where there is nothing."""
        settings = self._session.settings
        if not settings.guard.rescue or self._application is None or not _any(settings.store.directory, self._keys()):
            return ""
        from memkit.notebook import rescue_commands  # and all it needs: there is something to tell

        return rescue_commands.take_over(self.rescuer, self._home(), self._keys(), self._session.settings)

    def _home(self) -> Home:
        from memkit.lifecycle.rescue.home import Home

        session = self._session
        return Home(
            session.tracker, session.demotion, session.registration, session.space, lambda: session.store, session
        )


def _any(directory: Any, keys: tuple[str, ...]) -> bool:
    """Whether a kernel with one of these keys left a rescue."""
    from memkit.lifecycle.rescue.keys import is_of
    from memkit.lifecycle.store.folder import choose_base, users_path

    try:
        with os.scandir(users_path(choose_base(directory))) as entries:
            return any(is_of(entry.name, keys) for entry in entries)
    except (OSError, DemotionError):  # no folder, or none that may be read: nothing is there to be given back
        return False
