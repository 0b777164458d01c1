"""A whole session against a dict: in whatever order things are done, no value is lost or changed unless let go of."""

from __future__ import annotations

import tempfile

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from memkit import config
from memkit.errors import PinnedError, ReleasedError
from memkit.lifecycle.holders import Namespace
from memkit.wiring import Session
from tests.fakes import Clock

NAMES = st.sampled_from("abcd")
SOME = st.lists(NAMES, min_size=1, max_size=3, unique=True)


class SessionMachine(RuleBasedStateMachine):
    """`model` is what the user believes to have in his variables; `tracked` the type of those that are tracked."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        chosen = {"store": {"directory": self.folder.name}, "monitor": {"interval": "1 h"}}
        chosen["types"] = {"brief": {"ttl": "10 s", "on_expire": ["compress", "spill"]}}
        self.space = Namespace({})
        self.session = Session(config.load(overrides=[("test", chosen)]), space=self.space, clock=self.clock)
        self.model: dict[str, list[int]] = {}
        self.tracked: dict[str, str] = {}
        self.held: list[object] = []
        self.number = 0

    def teardown(self) -> None:
        self.session.close()
        self.folder.cleanup()

    def _fresh(self) -> list[int]:
        self.number += 1
        return [self.number, *range(2000)]

    def _cell(self, names, change=lambda: None) -> None:
        """What the hooks do around a cell that mentions these names."""
        held = self.session.variables.enter(names)
        try:
            change()
        finally:
            self.session.variables.leave(held)

    @initialize()
    def begin(self) -> None:
        for name in "abcd":
            self.assign(name)
            self.session.register(name)
            self.tracked[name] = "general"

    @rule(name=NAMES)
    def assign(self, name):
        """`name = ...`, which does not read it."""
        value = self._fresh()
        self.model[name] = list(value)
        self._cell([], lambda: self.space.variables.__setitem__(name, value))

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def delete(self, data):
        name = data.draw(st.sampled_from(sorted(self.model)))
        self._cell([name], lambda: self.space.variables.pop(name))
        del self.model[name]
        self.tracked.pop(name, None)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), type_=st.sampled_from(["general", "brief", "temp_buffers"]))
    def register(self, data, type_):
        name = data.draw(st.sampled_from(sorted(self.model)))
        self.session.register(name, type=type_)
        self.tracked[name] = type_

    @rule(names=SOME, verb=st.sampled_from(["spill", "compress", "unload", "restore"]))
    def move(self, names, verb):
        self._expire()
        names = [name for name in names if name in self.tracked]
        if names:
            getattr(self.session, verb)(*names)

    @precondition(lambda self: self.tracked)
    @rule(data=st.data())
    def release(self, data):
        name = data.draw(st.sampled_from(sorted(self.tracked)))
        self._expire()
        if name in self.tracked:
            self.session.release(name)
            self._gone(name)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def mention(self, data):
        """A cell reads and changes it in place."""
        name = data.draw(st.sampled_from(sorted(self.model)))
        self._expire()
        if name in self.model:
            self._cell([name], lambda: self.space.variables[name].append(self.number))
            self.model[name].append(self.number)

    @precondition(lambda self: self.tracked)
    @rule(data=st.data())
    def pin_and_try(self, data):
        name = data.draw(st.sampled_from(sorted(self.tracked)))
        self._expire()
        if name in self.tracked:
            self.session.pin(name)
            try:
                self.session.spill(name)
                raise AssertionError("a pinned resource was spilled")
            except PinnedError:
                self.session.unpin(name)

    @rule(seconds=st.sampled_from([1.0, 9.0, 11.0, 31.0]))
    def pass_time(self, seconds):
        self.clock.advance(seconds)
        self._expire()

    @rule()
    def reclaim(self):
        self._expire()
        report = self.session.reclaim()
        for name in report.released:
            assert self.tracked[name] == "temp_buffers"
            self._gone(name)

    def _expire(self) -> None:
        for name in self.session.expire().released:
            assert self.tracked[name] == "temp_buffers", "only a type that says release loses a value"
            self._gone(name)

    def _gone(self, name: str) -> None:
        del self.tracked[name]
        del self.model[name]
        try:
            self.session.tracker.get(name)
            raise AssertionError("released and still there")
        except ReleasedError:
            pass

    @invariant()
    def the_same_names_are_tracked(self):
        assert {i.name for i in self.session.tracker.snapshot()} == set(self.tracked)

    @invariant()
    def every_name_is_in_the_namespace_or_demoted(self):
        demoted = {r.name for r in self.session.tracker.resources() if r.demoted}
        assert set(self.space.variables) | demoted == set(self.model)
        assert not set(self.space.variables) & demoted

    @invariant()
    def what_is_in_memory_is_what_the_user_put_there(self):
        for name, value in self.space.variables.items():
            assert value == self.model[name]

    @invariant()
    def what_rests_is_accounted_for_and_readable(self):
        stored = {id(r.stored): r.stored for r in self.session.tracker.resources() if r.stored is not None}
        for one in stored.values():
            values = self.session.store.load(one)
            for resource in self.session.tracker.resources():
                if resource.stored is one:
                    assert values[resource.name] == self.model[resource.name]
        if not stored:
            assert self.session.read().disk == self.session.read().compressed == 0


SessionMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestSession = SessionMachine.TestCase
