"""A kernel without Jupyter: a forked process that defines variables, has its picture taken, and dies; and its heir."""

from __future__ import annotations

import dataclasses
import faulthandler
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memkit import config
from memkit.config import Settings, StoreSettings
from memkit.errors import RescueError
from memkit.lifecycle.holders import Namespace
from memkit.lifecycle.rescue import rescuing, sets
from memkit.lifecycle.rescue.adoption import Adoption
from memkit.lifecycle.rescue.home import Home
from memkit.lifecycle.rescue.keeping import _quiet
from memkit.lifecycle.rescue.picture import Source
from memkit.lifecycle.rescue.rescuer import Kernel, Rescuer, adopt
from memkit.wiring import Session

KEYS = ("0123abcd", "00000000")


def settings(folder: Path, **guard: Any) -> Settings:
    folder.mkdir(exist_ok=True)
    made = config.load(environ={})
    return dataclasses.replace(
        made, store=StoreSettings(directory=folder), guard=dataclasses.replace(made.guard, **guard)
    )


class Notebook:
    """Names, a session and a rescuer, as in a kernel."""

    def __init__(self, of: Settings, patience: float = 30.0) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
        self.session = Session(of, space=Namespace(self.names))
        self.rescuer = Rescuer(Kernel(of, KEYS, self.source, lambda: self.session._store, patience))

    def source(self) -> Source:
        visible = {name: value for name, value in self.names.items() if not name.startswith("_")}
        resources = self.session.tracker.resources()
        return Source(visible, self.names, resources, self.session._store, self.session, (self.names, self.session))

    def run(self, code: str) -> None:
        exec(compile(code, "<cell>", "exec"), self.names)

    def close(self) -> None:
        self.rescuer.close()
        self.rescuer.detach()
        self.session.close()


def die(
    of: Settings,
    code: str | Callable[[Notebook], object],
    end: str = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    patience: float = 30.0,
    wait: bool = True,
) -> int:
    """Run a kernel's whole life in a process of its own: the code, a picture, the end. Answers how it ended."""
    rescuing.prepare()
    with _quiet():
        pid = os.fork()
    if pid == 0:
        _live_and_die(of, code, end, patience)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # a Jupyter server takes its time too
    if wait:
        until_saved(of)
    return os.waitpid(pid, 0)[1]


def _live_and_die(of: Settings, code: str | Callable[[Notebook], object], end: str, patience: float) -> None:
    try:
        faulthandler.disable()  # pytest's would print the stack of deaths that are wanted
        sys.modules["__main__"] = type(sys)("__main__")
        notebook = Notebook(of, patience)
        if isinstance(code, str):
            notebook.run(code)
        else:
            code(notebook)
        assert notebook.rescuer.take(force=True), notebook.rescuer.status()
        notebook.run(end)
        os.kill(os.getpid(), signal.SIGKILL)
    except BaseException:  # noqa: BLE001 - shown, and this process ends here
        import traceback

        traceback.print_exc()
    finally:
        os._exit(99)


def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for another process to have done something."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def until_saved(of: Settings, count: int = 1) -> None:
    until(lambda: len([f for f in found(of) if not f.writing]) >= count)


def found(of: Settings) -> list[sets.Found]:
    made = []
    for folder in sets.matching(of.store.directory, KEYS):
        try:
            made.append(sets.look(folder))
        except RescueError:  # it is being made at this moment
            continue
    return made


class Heir(Notebook):
    """The next kernel."""

    def __init__(self, of: Settings, wait: float = 10.0) -> None:
        super().__init__(of)
        session = self.session
        self.home = Home(
            session.tracker, session.demotion, session.registration, session.space, lambda: session.store, session
        )
        self.rescuer.adoptions += adopt(found(of), lambda one: Adoption(one.folder, self.home, one.manifest, wait=wait))

    @property
    def adoption(self) -> Adoption:
        return self.rescuer.adoptions[0]

    @property
    def lost(self) -> dict[str, str]:
        return {lost.name: lost.reason for lost in self.adoption.manifest.lost}

    def __getitem__(self, name: str) -> Any:
        """A variable as a cell that mentions it sees it."""
        if name not in self.names:
            self.session.restore(name)
        return self.names[name]
