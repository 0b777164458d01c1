"""One case from beginning to end: a kernel, its variables, the hostile cell, the check, the rescue where it died."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from memkit.units import GIB
from tests.guard import variables
from tests.guard.case import BROKEN, CHECK, DIED, HUNG, LOST, OOM, PASSED, REFUSED, RESCUED, WRONG, Case, Death
from tests.guard.group import Group
from tests.guard.kernel import DiedError, Kernel, Reply, literal
from tests.guard.outcome import Outcome

_CELL_SECONDS = 60.0
_CELL_SECONDS_PER_GIB = 20.0
_CHECK_SECONDS = 30.0
_RESCUE_SECONDS = 30.0
_INTERRUPT_SECONDS = 10.0
_SIGNAL_AFTER = 0.3  # seconds into the cell's work
_DEATH_SECONDS = 10.0  # for a death that is on its way
_EXPRESSIONS = {"sums": "_sums", "work": "_work"}


@dataclass(frozen=True, slots=True)
class Settings:
    """How all cases of a run are run."""

    guard: bool = True
    python: str = sys.executable


class _EndedError(Exception):
    """The case is over, and how."""

    def __init__(self, kind: str, detail: str = "", note: str = "") -> None:
        super().__init__(kind, detail)
        self.kind, self.detail, self.note = kind, detail, note


def run(case: Case, limit: int, settings: Settings) -> Outcome:
    """Run one case in a kernel and a group of its own; raises NoGroupError where none can be made."""
    start = time.monotonic()
    with _kernel(limit, settings) as kernel:
        trial = _Trial(case, limit, settings, kernel)
        outcome = trial.outcome()
    return dataclasses.replace(outcome, total=time.monotonic() - start)


@contextlib.contextmanager
def _kernel(limit: int, settings: Settings) -> Iterator[Kernel]:
    folder = Path(tempfile.mkdtemp(prefix="mk-"))
    try:
        kernel = Kernel(Group(limit), folder, settings.python)
        try:
            yield kernel
        finally:
            kernel.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Trial:
    """The course of one case."""

    def __init__(self, case: Case, limit: int, settings: Settings, kernel: Kernel) -> None:
        self.case, self.limit, self.settings, self.kernel = case, limit, settings, kernel
        self.frame = "pandas" in case.needs
        self.code = case.theme == "deaths"
        self.seconds = 0.0
        self.cell_seconds = _CELL_SECONDS + _CELL_SECONDS_PER_GIB * limit / GIB

    def outcome(self) -> Outcome:
        kind, detail, note = self._end()
        group = self.kernel.group
        return Outcome(
            self.case, self.limit, kind, detail, self.seconds, 0.0, group.peak(), group.oom_kills(), note[-2000:]
        )

    def _end(self) -> tuple[str, str, str]:
        try:
            self._prepare()
        except (DiedError, TimeoutError) as error:
            return BROKEN, str(error), self.kernel.said()
        except _EndedError as end:
            return end.kind, end.detail, end.note
        self.kernel.group.mark()
        try:
            return self._course()
        except _EndedError as end:
            return end.kind, end.detail, end.note
        except DiedError as death:
            return self._rescue(death.how)

    def _prepare(self) -> None:
        self.kernel.start()
        first = "from room import *\n" + "\n".join(f"import {name}" for name in self.case.needs)
        cells = [first, variables.make(self.frame, self.code)]
        if self.settings.guard:
            cells.insert(0, "%load_ext memkit")
        for cell in cells:
            self._must_pass(cell, BROKEN)
        for cell in self.case.setup:
            self._set_up(cell)

    def _set_up(self, cell: str) -> None:
        """A cell before the hostile one; where the case may be refused, this one may be refused already."""
        reply = self._run(cell)
        if reply.error and not (REFUSED in self.case.may and reply.error in self.case.allowed_errors):
            raise _EndedError(BROKEN, reply.error, f"{cell[:80]!r}: {reply.text}")

    def _must_pass(self, cell: str, otherwise: str) -> None:
        reply = self._run(cell)
        if reply.error:
            raise _EndedError(otherwise, reply.error, f"{cell[:80]!r}: {reply.text}")

    def _course(self) -> tuple[str, str, str]:
        reply = self._hostile()
        for cell in self.case.after:
            self._must_pass(cell, CHECK)
        self._check()
        kind = PASSED if not reply.error else REFUSED if reply.error in self.case.allowed_errors else WRONG
        return kind, reply.error, reply.text

    def _hostile(self) -> Reply:
        """The cell, as often as the case says; the first reply that is an error, or the last."""
        found: Reply | None = None
        for _ in range(self.case.times):
            start = time.monotonic()
            try:
                reply = self._run_once()
            finally:
                self.seconds = max(self.seconds, time.monotonic() - start)
            found = reply if found is None or not found.error else found
        assert found is not None
        return found

    def _run_once(self) -> Reply:
        death = self.case.death
        if death is None or not death.running:
            reply = self._run(self.case.code)
            self._between(reply)
            return reply
        message = self.kernel.send(self.case.code)
        self._wait_for_file("ready")
        self._kill(death)
        reply = self.kernel.wait(message, self.cell_seconds)
        self.kernel.watch(_DEATH_SECONDS)
        return reply

    def _between(self, reply: Reply) -> None:
        """What happens after the cell and before the check, while no cell runs."""
        if self.case.message:
            self.kernel.click(str(literal(self.kernel.run("", 30, button="button.model_id").values["button"])))
        if self.case.death is not None:
            self._kill(self.case.death)
            self.kernel.watch(_DEATH_SECONDS)
        self.kernel.watch(self.case.idle)

    def _kill(self, death: Death) -> None:
        self.kernel.watch(_SIGNAL_AFTER)
        if death.signal == OOM:
            self.kernel.crowd()
        else:
            self.kernel.signal(death.signal)

    def _run(self, cell: str) -> Reply:
        """A cell, interrupted where it takes too long."""
        message = self.kernel.send(cell)
        try:
            return self.kernel.wait(message, self.cell_seconds)
        except TimeoutError:
            self.kernel.signal("SIGINT")
        try:
            reply = self.kernel.wait(message, _INTERRUPT_SECONDS)
        except TimeoutError as error:
            raise _EndedError(HUNG, "not to be interrupted", self.kernel.said()) from error
        raise _EndedError(HUNG, reply.error, reply.text)

    def _wait_for_file(self, name: str) -> None:
        deadline = time.monotonic() + self.cell_seconds
        while not (self.kernel.folder / name).exists():
            if time.monotonic() > deadline:
                raise _EndedError(BROKEN, "the cell never got ready")
            self.kernel.watch(0.05)

    def _check(self) -> None:
        """Every variable as it was, and a little work done."""
        try:
            problem = self._unlike(self.kernel.run(self._checking(), _CHECK_SECONDS, **_EXPRESSIONS))
        except TimeoutError as error:
            raise _EndedError(CHECK, "no answer", self.kernel.said()) from error
        if problem is not None:
            raise problem

    def _checking(self) -> str:
        return variables.check(self.frame, self.code)

    def _unlike(self, reply: Reply) -> _EndedError | None:
        """How the variables and the work differ from what they should be."""
        if reply.error == "NameError" and "keep_" in reply.text:
            return _EndedError(LOST, reply.error, reply.text)
        if reply.error:
            return _EndedError(CHECK, reply.error, reply.text)
        wanted = variables.expected(self.limit, self.frame, self.code, self.settings.python)
        got = literal(reply.values["sums"])
        if got != wanted:
            return _EndedError(LOST, "changed", f"{got} is not {wanted}")
        if literal(reply.values["work"]) != variables.WORK_DONE:
            return _EndedError(CHECK, "wrong result", reply.values["work"])
        return None

    def _rescue(self, how: str) -> tuple[str, str, str]:
        """The next kernel of the same name: whether the variables come back when they are mentioned."""
        said = self.kernel.said()
        if not self.settings.guard:
            return DIED, how, said
        try:
            problem = self._in_next_kernel()
        except (DiedError, TimeoutError) as error:
            return DIED, how, f"the next kernel: {type(error).__name__} {error}; {said}"
        if problem is None:
            return RESCUED, how, said
        return DIED, how, f"not rescued: {problem.kind} {problem.detail} {problem.note}; {said}"

    def _in_next_kernel(self) -> _EndedError | None:
        self.kernel.start()
        deadline = time.monotonic() + _RESCUE_SECONDS
        loaded = self.kernel.run("%load_ext memkit", _RESCUE_SECONDS)
        if loaded.error:
            return _EndedError(CHECK, loaded.error, loaded.text)
        while True:
            problem = self._unlike(self.kernel.run(self._checking(), _CHECK_SECONDS, **_EXPRESSIONS))
            if problem is None or time.monotonic() > deadline:
                return problem
            self.kernel.watch(0.25)
