"""After the kernel's death: writers are started, watched and replaced until every variable is saved or given up."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from memkit.lifecycle.rescue import manifest as manifests
from memkit.lifecycle.rescue.child import die_with_parent
from memkit.lifecycle.rescue.manifest import Entry, Lost, Manifest
from memkit.lifecycle.rescue.picture import Picture
from memkit.lifecycle.rescue.writer import Emit, Place, Unit, Work, is_tied, plain_word, units, without

PATIENCE = 30.0  # seconds without a sign of life
_OFTEN = 0.2  # seconds between two manifests


@dataclass(slots=True)
class Saving:
    """The state of one rescue being written. `patience` in seconds."""

    picture: Picture
    place: Place
    manifest: Manifest
    patience: float = PATIENCE
    todo: dict[int, Unit] = field(default_factory=dict)
    _planned: bool = False
    _entries: list[Entry] = field(default_factory=list)
    _lost: dict[str, Lost] = field(default_factory=dict)
    _current: int | None = None
    _written: float = 0.0
    _told: tuple[int, int, bool] | None = None
    _alone: bool = False  # no second process: memory is short

    def run(self) -> Manifest:
        """Save everything that can be saved; answers the final manifest, which is on disk then."""
        self._begin()
        while not self._planned or self.todo:
            if self._alone:
                self._work_alone()
            else:
                self._work_apart()
        self._tell(final=True)
        return self.manifest

    def _begin(self) -> None:
        picture = self.picture
        types = {name: picture.type_of(name) for name in picture.values}
        names = picture.names
        self.manifest = replace(
            self.manifest, total=len(names), pending=tuple(names), modules=picture.modules, types=types,
            kept=picture.kept,
        )  # fmt: skip
        self._tell()

    # -- a writer of its own -----------------------------------------------------------------------------------------

    def _work_apart(self) -> None:
        """One writer's life."""
        ours, theirs = os.pipe()
        try:
            pid = os.fork()
        except OSError:  # no memory for another process
            os.close(ours)
            os.close(theirs)
            self._alone = True
            return
        if pid == 0:
            os.close(ours)
            self._be_writer(theirs)
        os.close(theirs)
        silent = self._listen(ours)
        os.close(ours)
        if silent:
            os.kill(pid, signal.SIGKILL)
        self._writer_ended(os.waitpid(pid, 0)[1], silent)

    def _be_writer(self, pipe: int) -> None:
        try:
            die_with_parent()
            self._do_all(Work(self.picture, self._room(), _sender(pipe)))
        finally:
            os._exit(0)

    def _do_all(self, work: Work) -> None:
        units = list(self.todo.values()) if self._planned else work.plan()
        work.load_tied()
        for unit in units:
            if not work.lost.intersection(unit.names):
                work.save(unit)

    def _room(self) -> Place:
        return replace(self.place, most=max(0, self.place.most - sum(entry.stored for entry in self._entries)))

    def _listen(self, pipe: int) -> bool:
        """Take in what the writer says until it ends; True when it fell silent."""
        poller, rest, heard = select.poll(), b"", time.monotonic()
        poller.register(pipe, select.POLLIN)
        while True:
            if not poller.poll(_OFTEN * 1000):
                self._tell()  # what was heard since the last time
                if time.monotonic() - heard > self.patience:
                    return True
                continue
            heard = time.monotonic()
            data = os.read(pipe, 1 << 20)
            if not data:
                return False
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._hear(json.loads(line))

    def _writer_ended(self, status: int, silent: bool) -> None:
        if silent:
            self._give_up(f"nothing happened for {self.patience:.0f} s while it was written (a lock held elsewhere?)")
        elif status and os.WIFSIGNALED(status):
            if os.WTERMSIG(status) == signal.SIGKILL:  # nobody but the system, for want of memory
                self._alone = True
                self._drop_part()
            else:
                name = signal.Signals(os.WTERMSIG(status)).name
                self._give_up(f"writing it crashed ({name})")
        elif self._current is not None or not self._planned:
            self._give_up("writing it ended the process")

    def _give_up(self, reason: str) -> None:
        """What was under way is lost, or tried one by one; a plan that failed is replaced by the simplest."""
        if not self._planned:
            self._plan_simply()
        elif self._current is not None:
            self._drop_part()
            number, self._current = self._current, None
            self._failed(number, reason)

    def _drop_part(self) -> None:
        if self._current is not None:
            without(self.place.folder / f"{self._current}.values")

    # -- or this very process ----------------------------------------------------------------------------------------

    def _work_alone(self) -> None:
        """Memory is too short for a second process. A value that hangs ends this one; what is saved stays saved."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        if not self._planned:
            self._plan_simply()
        self._do_all(Work(self.picture, self._room(), self._hear_alone))
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _hear_alone(self, message: Mapping[str, Any]) -> None:
        signal.setitimer(signal.ITIMER_REAL, self.patience)
        self._hear(json.loads(json.dumps(message)))

    # -- what it says ------------------------------------------------------------------------------------------------

    def _hear(self, message: Mapping[str, Any]) -> None:
        if "plan" in message:
            planned = (Unit(number, tuple(names), kind) for number, names, kind in message["plan"])
            self._plan(planned, message["sizes"])
        elif "start" in message:
            self._current = message["start"]
        elif "done" in message:
            self._done(message["done"], message["entry"])
        elif "failed" in message:
            self._failed(message["failed"], message["reason"])
        elif "lost" in message:
            self._lose(message["lost"], message["reason"])
        self._tell()

    def _plan(self, units: Iterable[Unit], sizes: Mapping[str, int]) -> None:
        self._planned = True
        self.todo = {unit.number: unit for unit in units}
        self.manifest = replace(self.manifest, sizes=dict(sizes))

    def _plan_simply(self) -> None:
        """Each by itself."""
        names = [*self.picture.values, *(n for s, group in self.picture.stored.values() if is_tied(s) for n in group)]
        self._plan(units(self.picture, [(name,) for name in names]), {})

    def _done(self, number: int, plain: dict[str, Any]) -> None:
        entry = Entry(**{**plain, "names": tuple(plain["names"])})
        self._entries.append(entry)
        del self.todo[number]
        self._current = None

    def _failed(self, number: int, reason: str) -> None:
        """A group is tried one by one: what they share is then written several times."""
        unit = self.todo.pop(number)
        self._current = None
        if len(unit.names) > 1 and unit.kind == "values":
            first = 1 + max((number, *self.todo, *(int(entry.file.partition(".")[0]) for entry in self._entries)))
            self.todo.update({first + i: Unit(first + i, (name,), "values") for i, name in enumerate(unit.names)})
        else:
            self._lose(unit.names, reason)

    def _lose(self, names: Any, reason: str) -> None:
        for name in names:
            self._lost[name] = Lost(name, self._kind(name), reason)
        self.todo = {number: unit for number, unit in self.todo.items() if not set(names).issuperset(unit.names)}

    def _kind(self, name: str) -> str:
        value = self.picture.values.get(name)
        return plain_word(value) or self.manifest.types.get(name, "value")

    def _tell(self, final: bool = False) -> None:
        now = time.monotonic()
        state = (len(self._entries), len(self._lost), self._planned)
        if not final and (now - self._written < _OFTEN or state == self._told):
            return
        self._told = state
        settled = {name for entry in self._entries for name in entry.names} | set(self._lost)
        pending = tuple(n for n in self.picture.names if n not in settled and n not in self.picture.modules)
        self.manifest = replace(
            self.manifest, entries=tuple(self._entries), lost=tuple(self._lost.values()), pending=pending,
            complete=final,
        )  # fmt: skip
        try:
            manifests.write(self.place.folder, self.manifest)
        except OSError:  # a full disk: the next attempt may find room, and the last one says what is there
            if final:
                raise
        self._written = time.monotonic()


def _sender(pipe: int) -> Emit:
    def emit(message: Mapping[str, Any]) -> None:
        data = memoryview(json.dumps(message).encode() + b"\n")
        while data:
            data = data[os.write(pipe, data) :]

    return emit
