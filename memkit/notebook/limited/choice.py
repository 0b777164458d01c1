"""Which way of limiting memory is taken: the best that is permitted, or the one asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memkit.errors import LimitError
from memkit.notebook.limited.cgroup1 import CgroupV1
from memkit.notebook.limited.cgroup2 import CgroupV2
from memkit.notebook.limited.limit import Limit
from memkit.notebook.limited.rlimit import Rlimit
from memkit.notebook.limited.systemd import Systemd


@dataclass(frozen=True, slots=True)
class Refused:
    """A way that does not work here, and why."""

    method: str
    reason: str

    def __str__(self) -> str:
        return f"{self.method}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Choice:
    """The way taken, and those before it in the order of preference."""

    limit: Limit
    refused: tuple[Refused, ...] = ()


def limits(method: str = "auto") -> tuple[Limit, ...]:
    """The ways that a word of the command line stands for, the best first."""
    groups: tuple[Limit, ...] = (CgroupV2(), CgroupV1())
    ways: dict[str, tuple[Limit, ...]] = {"cgroup": groups, "systemd": (Systemd(),), "rlimit": (Rlimit(),)}
    return ways[method] if method != "auto" else tuple(limit for way in ways.values() for limit in way)


def choose(ways: Sequence[Limit]) -> Choice:
    """The first that works here; raises LimitError with the reason of each where none does."""
    refused: list[Refused] = []
    for limit in ways:
        reason = limit.available()
        if reason is None:
            return Choice(limit, tuple(refused))
        refused.append(Refused(limit.name, reason))
    raise LimitError("memory cannot be limited here - " + "; ".join(map(str, refused)))
