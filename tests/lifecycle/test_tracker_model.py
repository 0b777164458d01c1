"""The tracker against a plain model of it: whatever order things are done in, the rules hold."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from memkit.config import Policy
from memkit.lifecycle.holders import GONE, Owned
from memkit.lifecycle.tracker import Tracker
from tests.fakes import Clock

TTLS = st.sampled_from([None, 1.0, 5.0, 30.0])
NAMES = st.sampled_from("abcdef")


class TrackerMachine(RuleBasedStateMachine):
    """`model` maps a name to (deadline or None, pins, steps left)."""

    pins = Bundle("pins")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.discarded: list[object] = []
        self.tracker = Tracker(clock=self.clock, discard=self.discarded.append)
        self.ttl: dict[str, float | None] = {}
        self.base: dict[str, float] = {}
        self.held: dict[str, int] = {}
        self.handed_out: set[str] = set()
        self.stored: dict[str, object] = {}

    def _drop(self, name: str) -> None:
        for table in (self.ttl, self.base, self.held, self.stored):
            table.pop(name, None)
        self.handed_out.discard(name)

    def _used(self, name: str) -> None:
        self.base[name] = self.clock.now
        self.handed_out.discard(name)

    def _due(self, name: str) -> bool:
        ttl = self.ttl[name]
        counting = ttl is not None and not self.held[name] and name not in self.handed_out
        return counting and self.base[name] + ttl <= self.clock.now

    @rule(name=NAMES, ttl=TTLS)
    def register(self, name, ttl):
        self.tracker.register(name, Owned(object()), Policy("t", ttl=ttl), size=1)
        self._drop(name)
        self.ttl[name], self.held[name] = ttl, 0
        self._used(name)

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 4.0, 25.0, 1000.0]))
    def pass_time(self, seconds):
        self.clock.advance(seconds)

    @precondition(lambda self: self.ttl)
    @rule(data=st.data())
    def touch(self, data):
        name = data.draw(st.sampled_from(sorted(self.ttl)))
        self.tracker.touch(name)
        self._used(name)

    @precondition(lambda self: self.ttl)
    @rule(target=pins, data=st.data(), cell=st.booleans())
    def pin(self, data, cell):
        name = data.draw(st.sampled_from(sorted(self.ttl)))
        resource = self.tracker.pin(name, cell=cell)
        self.held[name] += 1
        self.handed_out.discard(name)
        return resource, cell

    @rule(pin=consumes(pins))
    def unpin(self, pin):
        resource, cell = pin
        self.tracker.unpin(resource, cell=cell)
        if self.tracker.find(resource.name) is resource:
            self.held[resource.name] -= 1
            self._used(resource.name)

    @rule()
    def sweep(self):
        expected = {name for name in self.ttl if self._due(name)}
        due = self.tracker.take_due()
        assert {resource.name for resource in due} == expected
        deadlines = [resource.since + resource.ttl for resource in due]
        assert deadlines == sorted(deadlines)
        self.handed_out |= expected

    @precondition(lambda self: self.handed_out)
    @rule(data=st.data(), more=st.booleans())
    def advance(self, data, more):
        name = data.draw(st.sampled_from(sorted(self.handed_out)))
        self.tracker.advance(self.tracker.get(name), more=more)
        self.base[name] = self.clock.now
        if more:
            self.handed_out.discard(name)

    @precondition(lambda self: self.ttl)
    @rule(data=st.data())
    def demote(self, data):
        name = data.draw(st.sampled_from(sorted(self.ttl)))
        self.stored[name] = object()
        self.tracker.settle(self.tracker.get(name), "disk", self.stored[name], kind="spilled")

    @precondition(lambda self: self.stored)
    @rule(data=st.data())
    def restore(self, data):
        name = data.draw(st.sampled_from(sorted(self.stored)))
        self.tracker.settle(self.tracker.get(name), "ram", None, kind="restored")
        assert self.discarded[-1] is self.stored.pop(name)

    @precondition(lambda self: self.ttl)
    @rule(data=st.data())
    def release(self, data):
        name = data.draw(st.sampled_from(sorted(self.ttl)))
        resource = self.tracker.get(name)
        resource.holder.clear()
        assert self.tracker.forget(resource, "released", "")
        assert resource.holder.get() is GONE
        self._drop(name)

    @invariant()
    def names_agree(self):
        assert {info.name for info in self.tracker.snapshot()} == set(self.ttl)

    @invariant()
    def pins_agree(self):
        assert {i.name: i.pins + i.cells for i in self.tracker.snapshot()} == self.held

    @invariant()
    def what_is_held_is_never_due(self):
        assert all(not info.pins or info.left is None for info in self.tracker.snapshot())

    @invariant()
    def every_stored_value_is_referred_to_or_given_up_once(self):
        live = {id(r.stored) for r in self.tracker.resources() if r.stored is not None}
        assert live == {id(stored) for stored in self.stored.values()}
        assert len({id(s) for s in self.discarded}) == len(self.discarded)
        assert not live & {id(s) for s in self.discarded}

    @invariant()
    def the_next_deadline_is_the_earliest(self):
        waiting = [
            self.base[n] + ttl
            for n, ttl in self.ttl.items()
            if ttl is not None and not self.held[n] and n not in self.handed_out
        ]
        due = self.tracker.due_in()
        assert (due is None) == (not waiting)
        if waiting:
            assert due == max(0.0, min(waiting) - self.clock.now)


TrackerMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestTracker = TrackerMachine.TestCase
