"""What one line of the battery's table says: a cell, where it runs, and how it may end."""

from __future__ import annotations

from dataclasses import dataclass, field

from memkit.units import GIB, MIB

LIMITS = (512 * MIB, GIB, 3 * GIB // 2, 4 * GIB)

# How a case can end. The first three leave every variable where it was.
PASSED = "passed"  # the cell ended as if nothing were the matter
REFUSED = "refused"  # it ended with an error that the case allows
RESCUED = "rescued"  # the kernel died; the next one has every variable
WRONG = "wrong error"  # it ended with an error that the case does not allow
LOST = "variables lost"  # a checksummed variable is gone or changed
CHECK = "check cell failed"  # the kernel lives, but the next small cell does not run
DIED = "DIED"  # the kernel died, and the variables with it
HUNG = "hung"  # the cell neither ended nor could be interrupted in time
BROKEN = "broken"  # the harness, or a cell of the set-up, failed: nothing was learnt
KINDS = (PASSED, REFUSED, RESCUED, WRONG, LOST, CHECK, DIED, HUNG, BROKEN)

ALIVE = frozenset({PASSED, REFUSED})
UNTOUCHED = frozenset({PASSED})
SAVED = frozenset({RESCUED})

MEMORY_ERRORS = frozenset({"MemoryGuardError", "MemoryGuardInterrupt", "MemoryError"})
UNNAMED = frozenset({"NoneType"})  # how ipykernel reports an error in a repr, with or without memkit


OOM = "OOM"  # not a signal of ours: another process of the group takes all memory until the kernel is killed


@dataclass(frozen=True, slots=True)
class Death:
    """A death from outside: the name of the signal, and whether it comes while the cell runs or after it."""

    signal: str
    running: bool = True


@dataclass(frozen=True, slots=True)
class Case:
    """One cell and what may become of it. Its code sees everything in `room`: LIMIT, MIB, left(), fits(), ...

    `setup` are cells before it, which must pass; `after` are cells which must pass after it. It runs `times` times, and
    any but the last may end as `may` allows. `idle` are seconds in which no cell runs before the check. Where
    `message` is true, a comm message is sent to the widget named `button` in that time.
    """

    name: str
    code: str
    may: frozenset[str] = ALIVE
    errors: frozenset[str] = frozenset()  # besides MEMORY_ERRORS
    needs: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    times: int = 1
    idle: float = 0.0
    message: bool = False
    death: Death | None = None
    limits: tuple[int, ...] = LIMITS
    known_failure: str = ""
    theme: str = field(default="", kw_only=True)

    @property
    def allowed_errors(self) -> frozenset[str]:
        """Names of the errors with which the cell may end."""
        return self.errors | MEMORY_ERRORS
