"""What the terminal says about the limit before a run, and about the whole of it after. Pure."""

from __future__ import annotations

from memkit.notebook.limited.choice import Choice
from memkit.notebook.limited.fit import Fit, Step, answer, where
from memkit.notebook.limited.outcome import Outcome
from memkit.notebook.report.result import CellRun
from memkit.units import format_bytes, format_share

_RANKED = 5
_REFUSED = ("MemoryGuardError", "MemoryGuardInterrupt")


def opening(choice: Choice, size: int | None, asked: str) -> list[str]:
    """How much, by what, and why not by something better."""
    much = "the smallest that will do" if size is None else format_bytes(size)
    why = "" if asked == "auto" else ", as asked for"
    tried = [f"  not {refused}" for refused in choice.refused]
    return [f"memory: {much}, held by {choice.limit.name}{why}", *tried]


def closing(outcome: Outcome) -> list[str]:
    """What became of it, where the files are, and what was measured."""
    result, lines = outcome.result, [""]
    if result.death is not None:
        where = f" in cell {result.death.cell.number}" if result.death.cell else ""
        lines.append(f"the kernel died{where}: {result.death.cause}")
        if result.death.cell is None and result.death.said:
            lines.append(f"it said: {result.death.said.splitlines()[-1]}")
    if result.interrupted:
        lines.append("interrupted")
    lines += [*result.notes, *outcome.notes]
    lines.append(f"notebook: {result.notebook.resolve()}")
    if result.output is not None:
        lines.append(f"report: {result.output.resolve()}")
    return [*lines, *(f"  {name:<8}{text}" for name, text in figures(outcome))]


def figures(outcome: Outcome) -> list[tuple[str, str]]:
    """The limit, the highest use, the cells that took most, and those that were refused."""
    found = [
        ("limit", f"{format_bytes(outcome.size)} by {outcome.method}{_killed(outcome.kills)}"),
        ("peak", _peak(outcome)),
        ("cells", _ranked(outcome)),
    ]
    refused = [_refusal(cell) for cell in outcome.result.cells if cell.error in _REFUSED]
    return [*found, ("refused", ", ".join(refused))] if refused else found


def _killed(kills: int | None) -> str:
    return "" if not kills else f"; the system killed {kills} process{'es' if kills > 1 else ''} at it"


def _peak(outcome: Outcome) -> str:
    if outcome.peak is None:
        return "not known"
    share = format_share(outcome.peak / outcome.size)
    return f"{format_bytes(outcome.peak)} ({share}), {outcome.measure}"


def _ranked(outcome: Outcome) -> str:
    """The cells with the highest peaks, which count the kernel itself and what was there before."""
    known = [(peak, cell) for cell in outcome.result.cells if (peak := outcome.peak_of(cell)) is not None]
    step = max((peak for peak, _ in known), default=0) / 100 or 1
    # Not by a few pages: cells after the one that took the memory start from there.
    known.sort(key=lambda pair: (-round(pair[0] / step), pair[1].number))
    shown = ", ".join(f"{cell.number} ({format_bytes(peak)})" for peak, cell in known[:_RANKED])
    return f"highest peak in {shown}" if shown else "no peak is known"


def _refusal(cell: CellRun) -> str:
    return f"cell {cell.number} ({cell.error})"


# -- --fit -------------------------------------------------------------------------------------------------------------


def step_line(number: int, step: Step, seconds: float) -> str:
    """One try."""
    end = "completed" if step.completed else f"failed{where(step)}"
    return f"{number:>3}  {format_bytes(step.size):>10}  {seconds:7.1f} s  peak {format_bytes(step.peak):>10}  {end}"


def fit_closing(fit: Fit, shown: Outcome | None) -> list[str]:
    """The answer, and the files of the run at that size."""
    lines = ["", *answer(fit)]
    if shown is not None:
        lines.append(f"notebook: {shown.result.notebook.resolve()} (run at {format_bytes(shown.size)})")
        if shown.result.output is not None:
            lines.append(f"report: {shown.result.output.resolve()}")
    return lines
