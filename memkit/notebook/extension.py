"""Loading memkit into a shell, and taking it out again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memkit import api
from memkit.lifecycle.holders import Namespace
from memkit.memory import heap
from memkit.memory.sample import anonymous_now
from memkit.notebook.cells import Cells
from memkit.notebook.complete import Completion
from memkit.notebook.errorslot import ErrorSlot
from memkit.notebook.explain import Explain
from memkit.notebook.guarding import Guarding
from memkit.notebook.keeper import IPythonKeeper
from memkit.notebook.magics import MemkitMagics
from memkit.notebook.rescued import Rescue
from memkit.notebook.settings import Memkit
from memkit.units import format_bytes
from memkit.wiring import Session

_MAGIC = "memkit"


class Extension:
    """Everything that loading has put into one shell."""

    def __init__(self, shell: Any, session: Session) -> None:
        self.shell = shell
        self.session = session
        self.cells = Cells(shell, session)
        slot = ErrorSlot(shell)
        self._explain = Explain(shell, session, slot)
        self._completion = Completion(shell, session)
        self.rescue = Rescue(shell, session, self.cells)
        self.guarding = Guarding(shell, session, self.cells, slot, self.rescue)
        self.on_unload: list[Callable[[], object]] = []  # what others have attached ends before anything is taken out

    def install(self) -> None:
        self.session.space.variables = self.shell.user_ns
        self.session.space.keeper = IPythonKeeper(self.shell)
        self.cells.install()
        self._explain.install()
        self._completion.install()
        self.shell.register_magics(MemkitMagics(self.shell, self.session))
        self.session.start()
        self.guarding.install()
        self.rescue.install()

    def uninstall(self) -> None:
        """Bring back what is demoted, then take everything out; what the store held is removed."""
        for end in self.on_unload:
            end()
        self.rescue.uninstall()
        self.guarding.uninstall()
        self.session.restore()
        self.cells.uninstall()
        self._explain.uninstall()
        self._completion.uninstall()
        for kind in ("line", "cell"):
            self.shell.magics_manager.magics[kind].pop(_MAGIC, None)
        self.session.close()


class _Loaded:
    """Which shell has which extension; a kernel has one shell, tests have many."""

    by_shell: dict[int, Extension] = {}  # noqa: RUF012


def load(shell: Any, before: int) -> None:
    """Wire memkit into a shell and say in one line how much memory there is; loading twice only says it again.

    `before` is what this process held, in bytes, before memkit was imported.
    """
    extension = _Loaded.by_shell.get(id(shell)) or _install(shell, before)
    told = filter(None, (greeting(extension.session), extension.rescue.greet()))
    print("\n".join(told))  # noqa: T201 - what a notebook sees when memkit is loaded


def _install(shell: Any, before: int) -> Extension:
    heap.tune()
    session = api.current() or api.use(Session(Memkit(parent=shell).settings(), space=Namespace()))
    extension = Extension(shell, session)
    extension.install()
    _Loaded.by_shell[id(shell)] = extension
    session.own_memory = max(0, anonymous_now() - before)
    return extension


def unload(shell: Any) -> None:
    """Take memkit out of a shell: no thread, event, matcher or file stays."""
    extension = _Loaded.by_shell.pop(id(shell), None)
    if extension is not None:
        extension.uninstall()
        if api.current() is extension.session:
            api.use(None)


def loaded(shell: Any) -> Extension | None:
    """What is loaded into this shell, if anything."""
    return _Loaded.by_shell.get(id(shell))


def greeting(session: Session) -> str:
    """Limit, available and level in one line."""
    sample, level = session.now()
    limit = f"limit {format_bytes(sample.limit)} ({sample.binding})"
    return f"memkit: {limit}, {format_bytes(sample.available)} available, level {level}"
