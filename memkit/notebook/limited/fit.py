"""Which size to try next on the way to the smallest that does. Pure.

A bisection that believes what it has seen: the lower end is the largest size that has failed, the upper one the
smallest that completed above it. Where completing is monotone in the size that is an ordinary bisection; where it is
not, the answer is a size above which nothing failed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from memkit.units import MIB, format_bytes

MOST_STEPS = 20
_FINEST, _SHARE = 16 * MIB, 0.02
# What a run used is a good guess of what it needs; memkit's guard wants up to 160 MiB to spare to refuse no cell, and
# peaks differ a little from run to run.
_SPARE, _UNSTEADY = 160 * MIB, 1.1


@dataclass(frozen=True, slots=True)
class Step:
    """One run: the size of the box, the highest use in it, and what failed ("" where the notebook completed)."""

    size: int
    failure: str = ""
    peak: int | None = None

    @property
    def completed(self) -> bool:
        return not self.failure


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where to look: `upper` is tried first, `lower` is taken to fail untried. Bytes."""

    lower: int
    upper: int
    most: int = MOST_STEPS


@dataclass(frozen=True, slots=True)
class Fit:
    """What the steps have shown. `smallest` is None where nothing completed, `below` where nothing failed beneath it.

    `contradiction`: a size that completed although the same or a larger one failed. `exhausted`: the number of steps
    was not enough.
    """

    steps: tuple[Step, ...]
    bounds: Bounds
    smallest: Step | None
    below: Step | None
    contradiction: tuple[Step, Step] | None
    exhausted: bool


def search(attempt: Callable[[int], Step | None], bounds: Bounds) -> Fit:
    """Try sizes until the answer is known or the steps are used up; `attempt` returns None to end it early."""
    steps: list[Step] = []
    while (size := next_size(steps, bounds)) is not None:
        step = attempt(size)
        if step is None:
            break
        steps.append(step)
    return verdict(steps, bounds)


def next_size(steps: Sequence[Step], bounds: Bounds) -> int | None:
    """The size to try next; None where the answer is known, nothing completes, or the steps are used up."""
    if not steps:
        return bounds.upper
    low, high = _bracket(steps, bounds)
    if high is None or len(steps) >= bounds.most:
        return None
    if high.size - low > resolution(high.size):
        return _between(low, high)
    # The answer is a promise, so it has to have completed twice.
    return high.size if sum(step.size == high.size for step in steps) < 2 else None


def resolution(size: int) -> int:
    """How near to the smallest size is near enough."""
    return max(_FINEST, int(_SHARE * size))


def verdict(steps: Sequence[Step], bounds: Bounds) -> Fit:
    """What a number of steps have shown."""
    low, high = _bracket(steps, bounds)
    below = next((step for step in steps if not step.completed and step.size == low), None)
    exhausted = high is not None and len(steps) >= bounds.most and _unsettled(steps, low, high)
    return Fit(tuple(steps), bounds, high, below, _contradiction(steps), exhausted)


def _bracket(steps: Sequence[Step], bounds: Bounds) -> tuple[int, Step | None]:
    low = max([bounds.lower, *(step.size for step in steps if not step.completed)])
    above = [step for step in steps if step.completed and step.size > low]
    return low, min(above, key=lambda step: step.size, default=None)


def _between(low: int, high: Step) -> int:
    middle = (low + high.size) // 2
    guess = middle if high.peak is None else int(high.peak * _UNSTEADY) + _SPARE
    size = min(middle, guess) if guess > low else middle
    return min(max(_round(size), low + 1), high.size - 1)


def _round(size: int) -> int:
    """To whole MiB, as people write sizes."""
    return -(-size // MIB) * MIB


def _unsettled(steps: Sequence[Step], low: int, high: Step) -> bool:
    return high.size - low > resolution(high.size) or sum(step.size == high.size for step in steps) < 2


def _contradiction(steps: Sequence[Step]) -> tuple[Step, Step] | None:
    """A step that completed and one that failed with as much or more."""
    pairs = ((good, bad) for good in steps if good.completed for bad in steps if not bad.completed)
    return next(((good, bad) for good, bad in pairs if good.size <= bad.size), None)


def answer(fit: Fit) -> list[str]:
    """The result in sentences."""
    lines = []
    if fit.contradiction is not None:
        good, bad = fit.contradiction
        lines.append(
            f"not only memory decides: it completed at {format_bytes(good.size)} and failed at "
            f"{format_bytes(bad.size)} ({bad.failure})"
        )
    if fit.exhausted:
        lines.append(f"the {fit.bounds.most} runs allowed were not enough to be sure")
    return [*lines, _smallest(fit)]


def _smallest(fit: Fit) -> str:
    if fit.smallest is None:
        last = max((step for step in fit.steps if not step.completed), key=lambda step: step.size, default=None)
        tried = format_bytes(fit.bounds.upper)
        return f"it does not complete in {tried}: {last.failure}" if last else f"nothing was found out at {tried}"
    size = format_bytes(fit.smallest.size)
    if fit.below is None:
        return f"smallest memory: {size} (completed at {size}; a kernel alone needs {format_bytes(fit.bounds.lower)})"
    below = f"failed at {format_bytes(fit.below.size)}{where(fit.below)}"
    return f"smallest memory: {size} (completed at {size}, {below})"


def where(step: Step) -> str:
    """In which cell a step failed, or of what."""
    return f" in {step.failure}" if step.failure.startswith("cell ") else f": {step.failure}"
