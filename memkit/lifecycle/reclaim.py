"""What is done when memory runs short, when a time to live is over, and when there is room again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from memkit.errors import MemkitError
from memkit.lifecycle.acts import Acts
from memkit.lifecycle.demotion import Demotion
from memkit.lifecycle.meter import Meter
from memkit.lifecycle.operation import Claimant
from memkit.lifecycle.order import Choose, by_policy, in_emergency, plan
from memkit.lifecycle.reports import Outcome, Plan, Report, Verb, skipped
from memkit.lifecycle.resource import Resource, ResourceInfo
from memkit.lifecycle.tracker import Tracker
from memkit.memory.pressure import Level, Thresholds, bytes_to_free
from memkit.memory.sample import Sample
from memkit.units import format_bytes

log = logging.getLogger("memkit")

_WARN_EVERY = 300.0  # seconds between two warnings that memory cannot be freed


class Reclaim:
    """Frees memory by policy, measuring after every step, and stops when the target is met."""

    def __init__(
        self,
        tracker: Tracker,
        acts: Acts,
        demotion: Demotion,
        meter: Meter,
        thresholds: Callable[[], Thresholds] = Thresholds,
        *,
        reload_delay: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tracker = tracker
        self._acts = acts
        self._demotion = demotion
        self._meter = meter
        self._thresholds = thresholds
        self.reload_delay = reload_delay
        self._clock = clock
        self._debts: set[str] = set()  # unloaded under pressure, to come back when it is calm
        self._calm_since: float | None = None
        self._warned_at = float("-inf")

    # -- expiry ----------------------------------------------------------------------------------------------------

    def sweep(self, early: Sequence[Resource] = ()) -> Report:
        """Do what is due on every resource past its time to live, and, as asked, on some before that."""
        due = [resource for resource in self._tracker.take_due() if resource not in early]
        if not due and not early:
            return Report("expire")
        outcome, measurement = Outcome(), self._meter.start()
        for resource in early:
            self._acts.expire(resource, outcome, "asked for by you")
        for resource in due:
            self._acts.expire(resource, outcome)
        return outcome.report("expire", measurement.settled(outcome.expected), measurement.seconds)

    def expire_one(self, resource: Resource) -> None:
        """Do what is due on one resource that was asked for after its deadline."""
        self._acts.expire(resource, Outcome())

    # -- pressure --------------------------------------------------------------------------------------------------

    def plan(self, choose: Choose = by_policy, infos: Sequence[ResourceInfo] | None = None) -> Plan:
        """What would go, in order."""
        return plan(self._tracker.snapshot() if infos is None else infos, choose)

    def free(self, target: int | None, choose: Choose = by_policy, *, reason: str = "asked for") -> Report:
        """Free `target` bytes by policy, what is due first; None = all that policies allow."""
        expired = self.sweep()
        rest = None if target is None else max(0, target - expired.measured)
        return self.carry_out(self.plan(choose), rest, "reclaim", reason).after(expired)

    def carry_out(self, planned: Plan, target: int | None, verb: Verb, reason: str, by: Claimant = "policy") -> Report:
        """Work through a plan until `target` bytes are measured to be free; None = to its end."""
        outcome, measurement = Outcome(skipped=list(planned.skipped)), self._meter.start()
        freed = 0
        for number, step in enumerate(planned.steps):
            if target is not None and freed >= target:
                outcome.skipped.extend(skipped([rest.name for rest in planned.steps[number:]], "not needed"))
                break
            resource = self._tracker.find(step.name)
            why = reason if by == "user" else f"{reason}: {step.reason}"
            if resource is not None and self._acts.apply(resource, step.action, why, outcome, by):
                freed = measurement.settled(outcome.expected) if target is not None else 0
        return outcome.report(verb, measurement.settled(outcome.expected), measurement.seconds)

    def make_room(self, size: int, available: int) -> None:
        """Before `size` bytes come back: free what is missing, as far as policies allow."""
        if size > available:
            self.free(size - available, reason="to make room")

    def on_sample(self, sample: Sample, level: Level) -> Report | None:
        """Act on a reading: free under pressure, reload after a calm while. Returns what was done."""
        if level == "normal":
            return self._when_calm(sample)
        self._calm_since = None
        target = bytes_to_free(sample.limit, sample.available, level, self._thresholds()) + sample.over
        if not target:
            return None
        report = self.free(target, in_emergency if level == "emergency" else by_policy, reason=level)
        self._debts.update(report.demoted)
        if report.measured < target:
            self._fell_short(target, report, level)
        return report

    def _fell_short(self, target: int, report: Report, level: Level) -> None:
        if level == "emergency":
            self._meter.give_back()
        now = self._clock()
        if now - self._warned_at < _WARN_EVERY:
            return
        self._warned_at = now
        left = "; ".join(f"{item.name} ({item.reason})" for item in report.skipped[:5]) or "nothing else is tracked"
        freed = format_bytes(max(0, report.measured))
        text = f"{format_bytes(target)} should be freed, {freed} could be; left alone: {left}"
        self._tracker.log.add("level", "", level, target, text)
        log.warning("memkit: %s: %s - see %%memkit top", level, text)

    # -- calm ------------------------------------------------------------------------------------------------------

    def _when_calm(self, sample: Sample) -> Report | None:
        now = self._clock()
        if self._calm_since is None:
            self._calm_since = now
        if not self._debts or now - self._calm_since < self.reload_delay:
            return None
        room = int(self._thresholds().recovery * sample.limit) - sample.used
        return self._reload_smallest(room)

    def _reload_smallest(self, room: int) -> Report | None:
        """Bring back the smallest debt that fits; one a reading, so that each is seen before the next."""
        owed = [r for r in self._tracker.resources() if r.name in self._debts]
        waiting = [r for r in owed if r.tier == "unloaded" and r.policy.reload == "when_calm"]
        self._debts = {r.name for r in waiting}
        fitting = min((r for r in waiting if r.size < room), key=lambda r: r.size, default=None)
        if fitting is None:
            return None
        self._debts.discard(fitting.name)
        return self._reload(fitting)

    def _reload(self, resource: Resource) -> Report | None:
        outcome, measurement = Outcome(), self._meter.start()
        try:
            self._demotion.restore(resource, "memory has been calm")
        except MemkitError as error:
            log.warning("memkit: %s", error, exc_info=error.__cause__)
            return None
        outcome.restored.append(resource.name)
        outcome.expected = -resource.size
        return outcome.report("restore", measurement.freed(), measurement.seconds)
