"""Limiting memory by asking systemd for a scope of the user's own: what an ordinary user of a desktop may do."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from memkit.errors import LimitError
from memkit.memory.cgroup import Group
from memkit.notebook.limited.counters import Counters
from memkit.notebook.limited.groupbox import GroupBox, own_groups
from memkit.notebook.limited.limit import Box, uninterrupted
from memkit.notebook.limited.maker import PATTERN, Maker
from memkit.units import MIB

_SECONDS = 10.0
_TRIED = 64 * MIB
# Run in a scope: prints the limit that the kernel holds it to, which is less than systemd was asked for where the
# memory controller is not handed to users.
_READ_LIMIT = """
path = next(line[3:].strip() for line in open("/proc/self/cgroup") if line.startswith("0::"))
mount = next(line.split()[4] for line in open("/proc/self/mountinfo") if " - cgroup2 " in line)
print(open(mount + path + "/memory.max").read().strip())
"""
Run = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)


class Systemd:
    """`systemd-run --user --scope`, which puts itself into a new group and then becomes the kernel."""

    name = "systemd-run"

    def __init__(
        self, root: Path = Path("/"), run: Run = _run, which: Callable[[str], str | None] = shutil.which
    ) -> None:
        self._root, self._run, self._which = root, run, which

    def available(self) -> str | None:
        """Tries it with a scope that ends at once."""
        if not self._which("systemd-run"):
            return "there is no systemd-run"
        try:
            unit = _unit()
            told = self._run([*scope(unit, _TRIED), sys.executable, "-I", "-S", "-c", _READ_LIMIT])
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"systemd-run does not work: {error}"
        if told.returncode == 0 and told.stdout.strip() == str(_TRIED):
            return None
        why = told.stderr.strip().splitlines()
        return why[-1] if why else "systemd gives users no memory controller: the limit was not set"

    @contextlib.contextmanager
    def box(self, size: int) -> Iterator[Box]:
        """See `limit.Limit.box`."""
        self._sweep()
        unit = _unit()
        box = SystemdBox(unit, size, self._root, self._result)
        try:
            yield box
        finally:
            with uninterrupted():
                self._end(unit)

    def _result(self, unit: str) -> str:
        return self._systemctl("show", "--property=Result", "--value", unit).strip()

    def _end(self, unit: str) -> None:
        self._systemctl("kill", "--signal=KILL", unit)
        self._systemctl("stop", unit)
        self._systemctl("reset-failed", unit)  # a failed scope is remembered until this

    def _sweep(self) -> None:
        listed = self._systemctl("list-units", "--all", "--plain", "--no-legend", f"{PATTERN}.scope")
        for line in listed.splitlines():
            unit = line.split()[0]
            maker = Maker.of_name(unit.removesuffix(".scope"))
            if maker is not None and maker.is_dead():
                self._end(unit)

    def _systemctl(self, *arguments: str) -> str:
        """What systemctl says; "" where it fails, as for a scope that is gone already."""
        try:
            told = self._run(["systemctl", "--user", *arguments])
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LimitError(f"systemctl --user {arguments[0]} does not work: {error}") from error
        return told.stdout if told.returncode == 0 else ""


class SystemdBox:
    """See `limit.Box`. The group ends with its last process, so its counters are read while the kernel runs."""

    notes: tuple[str, ...] = ()
    measure = GroupBox.measure

    def __init__(self, unit: str, size: int, root: Path, result: Callable[[str], str]) -> None:
        self.prefix = scope(unit, size)
        self.environ: Mapping[str, str] = {}
        self._unit, self._root, self._result = unit, root, result
        self._pid: int | None = None
        self._counters: Counters | None = None

    def started(self, pid: int) -> None:
        self._pid = pid

    def look(self) -> None:
        if self._counters is None:
            self._counters = self._found()
        if self._counters is not None:
            self._counters.look()

    def held(self) -> int | None:
        self.look()
        return None if self._counters is None else self._counters.held()

    def peak(self) -> int | None:
        self.look()
        return None if self._counters is None else self._counters.highest

    def kills(self) -> int | None:
        """The last kill may come after the last look; systemd remembers that there was one."""
        self.look()
        seen = 0 if self._counters is None else self._counters.killed or 0
        return max(seen, 1 if self._result(self._unit) == "oom-kill" else 0)

    def _found(self) -> Counters | None:
        """Only once the process is in its scope: it asks for that after it was started."""
        try:
            own = own_groups(self._root, 2, self._pid or "self")
        except (OSError, ValueError, IndexError):
            return None
        return Counters(Group(2, own[0])) if own and own[0].endswith(self._unit) else None


def scope(unit: str, size: int) -> tuple[str, ...]:
    """The command that runs another one in a scope of `size` bytes without swap."""
    limits = (f"MemoryMax={size}", "MemorySwapMax=0")
    options = [part for limit in limits for part in ("-p", limit)]
    return ("systemd-run", "--user", "--scope", "--quiet", f"--unit={unit}", *options, "--")


def _unit() -> str:
    return f"{Maker.this().new_name()}.scope"
