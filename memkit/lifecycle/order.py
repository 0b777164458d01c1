"""Which resource goes first, and why. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from memkit.config import Action, Policy
from memkit.lifecycle.reports import Plan, Skipped, Step
from memkit.lifecycle.resource import ResourceInfo
from memkit.units import format_seconds

Choose = Callable[[ResourceInfo], Action]


def gentle(action: Action, policy: Policy, reloadable: bool) -> Action:
    """What has a recipe is unloaded rather than released: it can come back."""
    return "unload" if action == "release" and reloadable and policy.reload != "never" else action


def by_policy(info: ResourceInfo) -> Action:
    """What the type says is done under pressure, or to what has expired."""
    last = info.policy.on_expire[-1]
    action = last if info.state == "expired" and last != "keep" else info.policy.on_pressure[0]
    return gentle(action, info.policy, info.reloadable)


def in_emergency(info: ResourceInfo) -> Action:
    """As the type says; what would be kept is spilled."""
    action = by_policy(info)
    return "spill" if action == "keep" else action


def at_the_brink(info: ResourceInfo) -> Action:
    """As in an emergency; what would be compressed is spilled, which takes less memory while it is done."""
    action = in_emergency(info)
    return "spill" if action == "compress" else action


def plan(infos: Iterable[ResourceInfo], choose: Choose = by_policy) -> Plan:
    """What policies let go, expired first, then the lowest priority, then the longest unused; each with its reason.

    Left alone: what is in use, what holds no memory here, and what its type keeps (`min_keep`, `keep`).
    """
    ordered = sorted(infos, key=_rank)
    kept = _kept(ordered)
    return _sorted_out(ordered, choose, lambda info, action: _excluded(info, action, kept, choose))


def plan_release(infos: Iterable[ResourceInfo]) -> Plan:
    """What the user chose to release for good, in the same order; only a pin holds it back."""
    return _sorted_out(sorted(infos, key=_rank), lambda info: "release", lambda info, _: "pinned" if info.pins else "")


def _sorted_out(
    ordered: Sequence[ResourceInfo], choose: Choose, excluded: Callable[[ResourceInfo, Action], str]
) -> Plan:
    steps: list[Step] = []
    left: list[Skipped] = []
    for info in ordered:
        action = choose(info)
        why_not = excluded(info, action)
        if why_not:
            left.append(Skipped(info.name, why_not))
        else:
            steps.append(Step(info.name, action, _reason(info), _frees(info)))
    return Plan(tuple(steps), tuple(left))


def _rank(info: ResourceInfo) -> tuple[bool, int, float]:
    return (info.state != "expired", info.priority, -info.idle)


def _frees(info: ResourceInfo) -> int:
    """Bytes that letting go of it should free, here or where it is."""
    return info.size if info.tier in ("vram", "external") else info.in_memory


def _kept(ordered: Sequence[ResourceInfo]) -> frozenset[str]:
    """Of each type the `min_keep` that would go last."""
    kept: set[str] = set()
    counts: Counter[str] = Counter()
    for info in reversed(ordered):
        if info.tier not in ("disk", "unloaded") and counts[info.type] < info.policy.min_keep:
            counts[info.type] += 1
            kept.add(info.name)
    return frozenset(kept)


def _excluded(info: ResourceInfo, action: Action, kept: frozenset[str], choose: Choose) -> str:
    """Why a policy leaves a resource alone; empty when it does not."""
    reasons = {
        "pinned": info.pins > 0,
        "in use by the running cell": info.cells > 0,
        "being worked on": info.state == "busy",
        "already on disk": info.tier == "disk",
        "already unloaded": info.tier == "unloaded",
        f"type {info.type} says keep": action == "keep",
        f"min_keep {info.policy.min_keep} of type {info.type}": info.name in kept,
        "held by your own code": info.kind == "observed",
        "mapped from its file, which the system takes back by itself": info.mapped and choose is by_policy,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _reason(info: ResourceInfo) -> str:
    idle = f"unused for {format_seconds(info.idle)}"
    return f"expired, {idle}" if info.state == "expired" else f"priority {info.priority}, {idle}"
