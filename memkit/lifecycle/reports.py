"""What was done to resources, as it was measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from memkit.config import Action
from memkit.errors import ReleaseError
from memkit.shown import Shown, Table
from memkit.units import format_bytes

_SUMS = ("released", "demoted", "restored", "expected", "measured", "seconds", "still_held", "skipped", "failed")

Verb = Literal["release", "spill", "compress", "unload", "restore", "expire", "reclaim"]


@dataclass(frozen=True, slots=True)
class StillHeld:
    """A released value that something else keeps alive, and what does."""

    name: str
    holders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A resource that was left alone, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, repr=False)
class Report(Shown):
    """The outcome of a release, demotion, restoration or reclaim.

    `expected` is what the resources were sized at, `measured` how much this process' own memory (anonymous and
    shared) fell; negative where it grew. Both in bytes, and both 0 for what was not in memory.
    """

    verb: Verb
    released: tuple[str, ...] = ()
    demoted: tuple[str, ...] = ()
    restored: tuple[str, ...] = ()
    expected: int = 0
    measured: int = 0
    seconds: float = 0.0
    still_held: tuple[StillHeld, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    failed: tuple[Skipped, ...] = ()

    def checked(self) -> Report:
        """This report; raises ReleaseError, which carries it, where something failed and is still tracked."""
        if self.failed:
            raise ReleaseError("; ".join(item.reason for item in self.failed), self)
        return self

    def after(self, earlier: Report) -> Report:
        """This report with what was done just before it."""
        sums = {name: getattr(earlier, name) + getattr(self, name) for name in _SUMS}
        return dataclasses.replace(self, **sums)

    def headline(self) -> str:
        done = [
            f"{word} {', '.join(names)}"
            for word, names in (("released", self.released), ("demoted", self.demoted), ("restored", self.restored))
            if names
        ]
        what = "; ".join(done) or f"nothing to {self.verb}"
        if not done:
            return what
        if self.verb == "restore":
            sizes = f"{format_bytes(-self.expected)}, this process' memory {format_bytes(-self.measured, signed=True)}"
        else:
            sizes = f"expected {format_bytes(self.expected)}, measured {format_bytes(self.measured)}"
        return f"{what}: {sizes} in {self.seconds:.2f} s"

    def tables(self) -> tuple[Table, ...]:
        held = [(item.name, ", ".join(item.holders)) for item in self.still_held]
        left = [(item.name, item.reason) for item in (*self.failed, *self.skipped)]
        return (Table(("still alive", "held by"), held), Table(("left alone", "because"), left))


@dataclass(slots=True)
class Outcome:
    """What is being done, collected on the way to a Report."""

    released: list[str] = field(default_factory=list)
    demoted: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    still_held: list[StillHeld] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    failed: list[Skipped] = field(default_factory=list)
    expected: int = 0

    def report(self, verb: Verb, measured: int, seconds: float) -> Report:
        return Report(
            verb,
            tuple(self.released),
            tuple(self.demoted),
            tuple(self.restored),
            self.expected,
            measured,
            seconds,
            tuple(self.still_held),
            tuple(self.skipped),
            tuple(self.failed),
        )


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do: which resource, what, why, and how many bytes that should free."""

    name: str
    action: Action
    reason: str
    expected: int


@dataclass(frozen=True, slots=True, repr=False)
class Plan(Shown):
    """The order in which resources would go, and those that would not."""

    steps: tuple[Step, ...]
    skipped: tuple[Skipped, ...] = ()

    @property
    def expected(self) -> int:
        """Bytes that all steps together should free."""
        return sum(step.expected for step in self.steps)

    def until(self, target: int) -> Plan:
        """The first steps, as many as should free `target` bytes; the rest is skipped as not needed."""
        total, taken = 0, 0
        while taken < len(self.steps) and total < target:
            total += self.steps[taken].expected
            taken += 1
        rest = (Skipped(step.name, "not needed") for step in self.steps[taken:])
        return Plan(self.steps[:taken], (*self.skipped, *rest))

    def to_dict(self) -> dict[str, object]:
        return {**Shown.to_dict(self), "expected": self.expected}

    def headline(self) -> str:
        return f"would free {format_bytes(self.expected)} in {len(self.steps)} steps (nothing was done)"

    def tables(self) -> tuple[Table, ...]:
        steps = [(str(i), s.name, s.action, format_bytes(s.expected), s.reason) for i, s in enumerate(self.steps, 1)]
        columns = ("#", "name", "action", "bytes", "why")
        return (
            Table(columns, steps, frozenset({"#", "bytes"})),
            Table(("left alone", "because"), [(item.name, item.reason) for item in self.skipped]),
        )


def skipped(names: Iterable[str], reason: str) -> tuple[Skipped, ...]:
    """The same reason for several names."""
    return tuple(Skipped(name, reason) for name in names)
