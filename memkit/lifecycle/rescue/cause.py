"""Why a kernel probably died: how the system says it ended, and what the memory counters say."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass

from memkit.memory.cgroup import Group, groups
from memkit.memory.files import number, read
from memkit.units import format_bytes

_EXIT_CODE = 52  # proc_pid_stat(5): the field of the exit status, in the form of waitpid(2)
_ABOUT_FULL = 0.95


@dataclass(frozen=True, slots=True)
class Counters:
    """Out-of-memory kills and the highest usage in bytes of the nearest limited group; None where not told."""

    kills: int | None = None
    peak: int | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: by a signal, or with an exit code; both None where the system did not tell."""

    signal: int | None = None
    code: int | None = None


def own_groups() -> tuple[Group, ...]:
    """The memory groups of this process; none where there are none."""
    try:
        return groups(read("/proc/self/cgroup"), read("/proc/self/mountinfo"), "")
    except OSError:
        return ()


def counters(found: tuple[Group, ...]) -> Counters:
    """Kills anywhere in the chain of groups; peak and limit of the own one."""
    kills = [count for group in found if (count := _kills(group)) is not None]
    peak = limit = None
    if found:
        v2 = found[0].version == 2
        peak = _number(f"{found[0].folder}/memory.{'peak' if v2 else 'max_usage_in_bytes'}")
        limit = _number(f"{found[0].folder}/memory.{'max' if v2 else 'limit_in_bytes'}")
    return Counters(sum(kills) if kills else None, peak, limit)


def _kills(group: Group) -> int | None:
    name = "memory.events" if group.version == 2 else "memory.oom_control"
    try:
        found = re.search(rb"^oom_kill (\d+)$", read(f"{group.folder}/{name}"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None


def _number(path: str) -> int | None:
    try:
        return number(path)
    except (OSError, ValueError):
        return None


def ended(pid: int) -> Ended:
    """How a process ended that nobody has waited for yet."""
    try:
        fields = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        if fields[0] not in (b"Z", b"X"):
            return Ended()
        status = int(fields[_EXIT_CODE - 3])
    except (OSError, ValueError, IndexError):
        return Ended()
    return Ended(signal=status & 0x7F) if status & 0x7F else Ended(code=status >> 8)


def likely(how: Ended, before: Counters, after: Counters) -> str:
    """The likely cause in words."""
    killed = before.kills is not None and after.kills is not None and after.kills > before.kills
    if killed and how.signal in (None, signal.SIGKILL):
        return f"killed by the system for want of memory{_limit(after)}"
    if how.signal is not None:
        return _by_signal(how.signal, after)
    if how.code is not None:
        return f"the process ended itself with code {how.code} (os._exit, or a library's exit)"
    return "unknown; the system did not tell"


def _limit(after: Counters) -> str:
    return f" (limit {format_bytes(after.limit)})" if after.limit is not None and after.limit < 2**60 else ""


def _by_signal(number: int, after: Counters) -> str:
    words = {
        signal.SIGSEGV: "a crash in compiled code (SIGSEGV)",
        signal.SIGBUS: "a crash in compiled code (SIGBUS: a mapped file or shared memory that is not there)",
        signal.SIGABRT: "a library gave up (abort)",
        signal.SIGTERM: "asked to end from outside (SIGTERM)",
    }
    if number == signal.SIGKILL:
        full = after.peak is not None and after.limit is not None and after.peak >= _ABOUT_FULL * after.limit
        return f"killed (SIGKILL), probably for want of memory{_limit(after)}" if full else "killed (SIGKILL)"
    return words.get(signal.Signals(number), f"signal {number}")
