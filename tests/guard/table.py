"""The battery's table as it goes, and the summary at its end."""

from __future__ import annotations

from collections.abc import Sequence

from memkit.units import format_bytes
from tests.guard.case import ALIVE, BROKEN, DIED, RESCUED
from tests.guard.outcome import Outcome, Rate, rate

HEADER = f"{'limit':>9}  {'cell':<52} {'outcome':<40} {'seconds':>8} {'peak':>10}"


def line(outcome: Outcome) -> str:
    """One outcome."""
    mark = "" if outcome.allowed else "  <-- FAILURE" if outcome.failed else "  known failure"
    return (
        f"{format_bytes(outcome.limit):>9}  {outcome.case.name[:52]:<52} {said(outcome):<40} "
        f"{outcome.seconds:8.2f} {format_bytes(outcome.peak):>10}{mark}"
    )


def said(outcome: Outcome) -> str:
    """The outcome in words: how it ended, by what, and whether the OOM killer was there."""
    detail = f" ({outcome.detail})" if outcome.detail and outcome.kind not in ALIVE - {"refused"} else ""
    killed = f", OOM killed {outcome.oom_kills}" if outcome.oom_kills else ""
    return f"{outcome.kind}{detail}{killed}"


def summary(outcomes: Sequence[Outcome], guard: bool) -> str:
    """Survival rate for each limit and for all, and the name of every failure."""
    hostile = [o for o in outcomes if o.case.theme not in ("legitimate", "deaths")]
    lines = ["", "hostile cells: kernel alive, variables intact, the next cell works"]
    limits = sorted({o.limit for o in outcomes})
    lines += [_rate(format_bytes(limit), rate(o for o in hostile if o.limit == limit)) for limit in limits]
    lines.append(_rate("all limits", rate(hostile)))
    lines.append(_rate("legitimate cells", rate(o for o in outcomes if o.case.theme == "legitimate")))
    lines.append(_rate("unstoppable deaths", rate(o for o in outcomes if o.case.theme == "deaths")))
    lines.append(f"seconds of the hostile cells: {sum(o.seconds for o in outcomes):.0f}")
    if not guard:
        died = sum(o.kind in (DIED, RESCUED) for o in hostile)
        lines.append(f"without the guard {died} of {len(hostile)} hostile cells killed the kernel")
    return "\n".join([*lines, *failures(outcomes)])


def _rate(name: str, rate: Rate) -> str:
    share = rate.survived / rate.of if rate.of else 0
    return (
        f"  {name:<20} {rate.survived:4d} of {rate.of:4d} survived ({share:6.1%}), "
        f"{rate.kept:4d} kept their variables, {rate.allowed:4d} as the table allows"
    )


def failures(outcomes: Sequence[Outcome]) -> list[str]:
    """One line for each outcome that the table does not allow."""
    bad = [o for o in outcomes if not o.allowed]
    if not bad:
        return ["no failure"]
    lines = []
    for o in bad:
        known = f" [known: {o.case.known_failure}]" if o.case.known_failure else ""
        note = " ".join(o.note.split())[: 400 if o.kind == BROKEN else 200]
        lines.append(f"  {format_bytes(o.limit):>9}  {o.case.name}: {said(o)}{known}  {note}")
    return ["failures:", *lines]
