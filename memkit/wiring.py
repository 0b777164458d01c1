"""The one place that wires the parts together, for one kernel or one program."""

from __future__ import annotations

import atexit
import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from memkit import config
from memkit.config import MonitorSettings, Settings
from memkit.errors import DemotionError, MemkitError, ReleasedError
from memkit.handles import Handle
from memkit.lifecycle.acts import Acts
from memkit.lifecycle.demotion import Demote, Demotion
from memkit.lifecycle.events import EventLog
from memkit.lifecycle.holders import GONE, Kind, Namespace
from memkit.lifecycle.meter import Meter
from memkit.lifecycle.operation import Claimant
from memkit.lifecycle.order import plan, plan_release
from memkit.lifecycle.reclaim import Reclaim
from memkit.lifecycle.registration import DEFAULT, GENERAL, Registration
from memkit.lifecycle.release import Release
from memkit.lifecycle.reports import Outcome, Plan, Report, Skipped
from memkit.lifecycle.resource import Options, Resource
from memkit.lifecycle.select import Selection, plain_names
from memkit.lifecycle.tracker import Tracker
from memkit.lifecycle.variables import Variables
from memkit.lifecycle.who import Who
from memkit.memory import heap
from memkit.memory.gc_clock import GcClock
from memkit.memory.monitor import Monitor
from memkit.memory.pressure import Level, Thresholds, next_level
from memkit.memory.sample import Reader, Sample, anonymous_now
from memkit.memory.subscribers import Notice
from memkit.units import parse_bytes

# What answers questions or demotes is imported when it is first asked to: loading memkit into a kernel should take
# less time than it takes to notice.
if TYPE_CHECKING:
    from memkit.lifecycle.status import LifecycleReport, Status
    from memkit.lifecycle.store import Store
    from memkit.lifecycle.top import Top
    from memkit.memory.guard.guard import Guard

log = logging.getLogger("memkit")

# Measured: record, holder, queue and table entries of one tracked resource.
_BYTES_PER_RESOURCE = 400
_ASKED = "asked for by you"


class Session:
    """Tracker, store, monitor and reclaim of one kernel, wired together. Every method may be called from any thread.

    Nothing runs in the background until `start()`. `close()` ends the thread and removes what was spilled.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        space: Namespace | None = None,
        reader: Reader | None = None,
        meter: Meter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = config.load() if settings is None else settings
        monitor = self.settings.monitor
        self.space = Namespace() if space is None else space
        self.gc_clock = GcClock()
        self.reader = reader or Reader(user_limit=monitor.limit, gc_clock=self.gc_clock)
        self.thresholds = _thresholds(monitor)
        self.own_memory = 0  # bytes this process had grown by when memkit was there
        self.own_seconds = 0.0  # CPU of the cell hooks; the monitor's thread counts its own
        self.log = EventLog()
        self._store: Store | None = None
        self.tracker = Tracker(
            clock=clock, log=self.log, discard=lambda stored: self.store.discard(stored), expire=self._expire_one
        )
        self.meter = meter or Meter(anonymous_now, heap.give_back)
        who = Who(self.tracker, self.space)
        self.demotion = Demotion(self.tracker, lambda: self.store, who, self._make_room)
        acts = Acts(self.tracker, Release(self.tracker, who), self.demotion)
        self.reclaimer = Reclaim(
            self.tracker, acts, self.demotion, self.meter, lambda: self.thresholds,
            reload_delay=monitor.reload_delay, clock=clock,
        )  # fmt: skip
        self.registration = Registration(self.tracker, self.settings.types, self.space)
        self.variables = Variables(self.tracker, self.demotion)
        self._guard: Guard | None = None
        self.rescue: Any = None  # what saves the variables from the kernel's death; only a notebook has it
        self.on_registered: list[Callable[[Resource], object]] = []
        self.monitor = Monitor(
            self.read, self.thresholds, interval=monitor.interval, clock=clock, wake_in=self.tracker.due_in
        )
        self._tidied = self.monitor.subscribe(lambda _: self._tidy_up(), on="tick")
        self.monitor.subscribe(lambda _: self.reclaimer.sweep(), on="tick")
        self.monitor.subscribe(self._on_sample, on="sample")

    @property
    def store(self) -> Store:
        """Where demoted values rest; made, and its code imported, when it is first needed."""
        if self._store is None:
            from memkit.lifecycle.store import Store

            self._store = Store(self.settings.store.directory, max_bytes=self.settings.store.max_bytes)
        return self._store

    @property
    def guard(self) -> Guard:
        """What keeps cells from exhausting memory; there is one where cells are run, in a notebook."""
        if self._guard is None:
            raise MemkitError("there is a guard only where memkit is loaded into a notebook: %load_ext memkit")
        return self._guard

    @guard.setter
    def guard(self, guard: Guard | None) -> None:
        self._guard = guard

    def budget(self, bytes: int | str) -> AbstractContextManager[None]:
        """A ceiling for what the code inside a `with` takes; beyond it MemoryGuardError is raised there."""
        return self.guard.budget(parse_bytes(bytes))

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Sample, sweep and act in the background; idempotent."""
        self.gc_clock.install()
        self.monitor.start()
        atexit.register(self.close)

    def close(self) -> None:
        """End the thread and remove what was spilled; idempotent. What is demoted then is gone: restore it first."""
        atexit.unregister(self.close)
        self.monitor.stop()
        self.gc_clock.uninstall()
        self.reader.close()
        if self._store is not None:
            self._store.close()

    def read(self) -> Sample:
        """One reading of the machine, with what memkit itself knows."""
        infos = self.tracker.snapshot()
        return dataclasses.replace(
            self.reader(),
            tracked=sum(info.in_memory for info in infos if info.tier == "ram"),
            compressed=self._store.bytes_compressed if self._store is not None else 0,
            disk=self._store.bytes_on_disk if self._store is not None else 0,
            own_memory=self.own_memory + _BYTES_PER_RESOURCE * len(infos),
            own_cpu_seconds=self.monitor.own_cpu_seconds + self.own_seconds,
        )

    def _tidy_up(self) -> None:
        """Once, in the monitor's thread: remove what kernels left behind that died."""
        from memkit.lifecycle.store.folder import sweep_leftovers

        self._tidied()
        try:
            sweep_leftovers(self.settings.store.directory)
        except DemotionError as error:  # there is no place to store anything, so nothing was left there
            log.debug("memkit: %s", error)

    def _on_sample(self, notice: Notice) -> None:
        if notice.sample is None or notice.error is not None:
            return
        if notice.level != notice.previous:  # said before what is done about it
            self.log.add("level", "", notice.level, notice.sample.used, f"memory is at level {notice.level}")
        self.refresh()
        self.reclaimer.on_sample(notice.sample, notice.level)

    def _expire_one(self, resource: Resource) -> None:
        self.reclaimer.expire_one(resource)

    def _make_room(self, size: int) -> None:
        self.reclaimer.make_room(size, self.read().available)

    # -- registering and access ------------------------------------------------------------------------------------

    def track(
        self,
        value: Any = None,
        *,
        name: str | None = None,
        type: str = GENERAL,
        ttl: Any = DEFAULT,
        priority: int | None = None,
        hold: Kind | None = None,
        size: int | Callable[[], int] | None = None,
        on_release: Callable[[Any], object] | None = None,
        reload: Callable[[], Any] | None = None,
        metadata: dict[str, Any] | None = None,
        tags: Sequence[str] = (),
        owner: str = "",
    ) -> Handle:
        """Track anything; a resource of the same name is replaced.

        `hold` says how it is held: `variable` (a notebook name), `owned` (by memkit), `observed` (by you, weakly) or
        `external` (outside this process; `size` in bytes or a callable). Left out, a value that a notebook name is
        bound to is a variable and any other is owned. `ttl` is seconds, text such as "5 min", or None for never; type
        and priority name the policy. `on_release(value)` is called once when it is let go of; `reload()` makes the
        value anew after it was unloaded.
        """
        options = Options(on_release, reload, dict(metadata or {}), frozenset(tags), owner)
        if name is not None and self.variables.is_tracked(name) and value is None:
            value = self._value_of_variable(name)
        resource = self.registration.add(
            value, name=name, type=type, ttl=ttl, priority=priority, size=size, hold=hold, options=options
        )
        for tell in tuple(self.on_registered):
            tell(resource)
        self.monitor.nudge()
        return Handle(self, resource)

    def register(self, name: str, **options: Any) -> Handle:
        """Track the notebook variable of this name; the options are those of `track`."""
        if self.variables.is_tracked(name):
            self._value_of_variable(name)
        return self.track(self.space.variables.get(name), name=name, hold="variable", **options)

    def _value_of_variable(self, name: str) -> Any:
        """A demoted variable is brought back before it is registered anew."""
        resource = self.tracker.get(name)
        self.demotion.restore(resource, "registered again")
        return resource.holder.get()

    def handle(self, name: str) -> Handle:
        """The handle of a tracked resource."""
        return Handle(self, self.tracker.get(name))

    def touch(self, name: str) -> None:
        """Note an access now."""
        self.tracker.touch(name)

    def pin(self, name: str) -> None:
        """Hold a resource until `unpin`: meanwhile it is neither expired, demoted nor released."""
        self.tracker.pin(name)

    def unpin(self, name: str) -> None:
        """End one `pin`."""
        self.tracker.unpin(self.tracker.get(name))

    def resident_value(self, resource: Resource) -> Any:
        """The value of a pinned resource, restored first where it was demoted."""
        if not self.demotion.restore(resource):
            self.log.hits += 1
        value = resource.holder.get()
        if value is GONE:
            self.tracker.forget(resource, "deleted", "its value is gone")
            raise ReleasedError(f"{resource.name!r} is gone: its name was deleted or the observed object has died")
        return value

    # -- letting go and bringing back ------------------------------------------------------------------------------

    def release(
        self,
        *names: str,
        type: str | None = None,
        pattern: str | None = None,
        below_priority: int | None = None,
        bytes: int | str | None = None,
        expired: bool = False,
        all: bool = False,
        dry_run: bool = False,
    ) -> Report | Plan:
        """Let resources go. What is chosen by name, type, pattern, priority or `all` is released for good.

        `bytes` stops as soon as that much is free. Given `bytes` or `expired` alone, every resource goes the way its
        type says: demoted rather than lost unless that says `release`. `dry_run` returns the plan and does nothing.
        """
        for name in plain_names(names):
            self.tracker.get(name)  # raises for one that is not there, before anything is done
        if type is not None:
            self.registration.policy(type)
        selection = Selection(names, type, pattern, below_priority, expired, all)
        target = None if bytes is None else parse_bytes(bytes)
        if selection.empty and target is None:
            raise MemkitError("release what? Give names, a type, a pattern, a priority, bytes, expired or all")
        self.refresh()
        self.reclaimer.sweep()
        infos = self.tracker.snapshot()
        infos = tuple(infos) if selection.empty else tuple(selection.apply(infos))
        planned = plan_release(infos) if selection.by_choice else plan(infos)
        if dry_run:
            return planned if target is None else planned.until(target)
        by: Claimant = "user" if selection.by_choice else "policy"
        return self.reclaimer.carry_out(planned, target, "release", _ASKED, by).checked()

    def spill(self, *names: str) -> Report:
        """Move to disk; several names go as one group, so that memory they share stays shared."""
        return self._demote("spill", names)

    def compress(self, *names: str) -> Report:
        """Pack in memory; what packing would not make smaller is moved to disk."""
        return self._demote("compress", names)

    def unload(self, *names: str) -> Report:
        """Drop values that have a reload recipe; others are moved to disk."""
        return self._demote("unload", names)

    def _demote(self, action: Demote, names: Sequence[str]) -> Report:
        resources = [self.tracker.get(name) for name in names]
        if not resources:
            raise MemkitError(f"{action} what? Give one or more names")
        outcome, measurement = Outcome(), self.meter.start()
        outcome.expected = sum(r.in_memory for r in resources)
        self.demotion.demote(resources, action, _ASKED, "user")
        outcome.demoted.extend(names)
        return outcome.report(action, measurement.settled(outcome.expected), measurement.seconds)

    def restore(self, *names: str) -> Report:
        """Bring demoted resources back now; without names, all of them."""
        resources = [self.tracker.get(name) for name in names] or [r for r in self.tracker.resources() if r.demoted]
        outcome, measurement = Outcome(), self.meter.start()
        for resource in resources:
            if self.demotion.restore(resource):
                outcome.restored.append(resource.name)
                outcome.expected -= resource.size
            elif names:
                outcome.skipped.append(Skipped(resource.name, "is in memory already"))
        return outcome.report("restore", measurement.freed(), measurement.seconds)

    def expire(self, *names: str) -> Report:
        """Do what is due on everything past its time to live; for the given names do now what their expiry would."""
        return self.reclaimer.sweep([self.tracker.get(name) for name in names])

    def reclaim(self, bytes: int | str | None = None, *, dry_run: bool = False) -> Report | Plan:
        """Free this much by policy, lowest priority first; without an amount, all that policies allow."""
        target = None if bytes is None else parse_bytes(bytes)
        self.refresh()
        if dry_run:
            planned = self.reclaimer.plan()
            return planned if target is None else planned.until(target)
        return self.reclaimer.free(target)

    # -- knowing ---------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Size again what cells have used since it was last sized."""
        stale, self.variables.stale = self.variables.stale, set()
        for name in stale:
            resource = self.tracker.find(name)
            if resource is not None and not resource.demoted and resource.operation is None:
                self.registration.measure(resource)

    def now(self) -> tuple[Sample, Level]:
        """A reading of this moment, and the level it means."""
        sample = self.read()
        return sample, next_level(self.monitor.level, sample.share, self.thresholds)

    def status(self) -> Status:
        """Level, limit, tiers and resources, read now."""
        from memkit.lifecycle.status import status

        self.refresh()
        sample, level = self.now()
        return status(sample, level, self.tracker.snapshot(), self.log, self.monitor.last_error)

    def top(self, count: int | None = 15) -> Top:
        """Variables and resources by size, tracked or not, shared memory counted once."""
        from memkit.lifecycle.top import is_data, top

        self.refresh()
        data = {name: value for name, value in list(self.space.variables.items()) if is_data(name, value)}
        return top(data, self.tracker.snapshot(), count)

    def report(self) -> LifecycleReport:
        """Status, statistics and the event log, for export as JSON or CSV."""
        from memkit.lifecycle.status import lifecycle_report

        return lifecycle_report(self.status(), self.log)

    def configure(self, **monitor: Any) -> Settings:
        """Change settings of the `monitor` section now (`limit="2GiB"`); raises ConfigError and changes nothing."""
        self.settings = config.changed(self.settings, "set by you", monitor)
        new = self.settings.monitor
        self.thresholds = self.monitor.thresholds = _thresholds(new)
        self.reclaimer.reload_delay = new.reload_delay
        self.reader.user_limit = new.limit
        self.monitor.interval = new.interval
        self.monitor.sample_now()
        return self.settings


def _thresholds(monitor: MonitorSettings) -> Thresholds:
    return Thresholds(monitor.warning, monitor.emergency, monitor.recovery, monitor.reserve)
