"""Pressure, expiry and calm on real values, with a machine whose memory the test decides."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from memkit import config
from memkit.errors import ReleasedError, ReloadError
from memkit.lifecycle.meter import Meter
from memkit.lifecycle.reclaim import Reclaim
from memkit.units import GIB, MIB
from memkit.wiring import Session
from tests.fakes import Clock, Machine

SIZE = 8 * MIB


class World:
    """A session on a machine of 1 GiB where every resident resource of SIZE counts as 100 MiB in use."""

    WEIGHT = 100 * MIB

    def __init__(self, tmp_path, **monitor):
        self.clock = Clock()
        self.machine = Machine(limit=GIB, used=0)
        settings = config.load(overrides=[("test", {"store": {"directory": str(tmp_path)}, "monitor": monitor})])
        self.base = 0
        meter = Meter(self.used, lambda: None)
        self.session = Session(settings, reader=self.machine, meter=meter, clock=self.clock)

    def used(self) -> int:
        resident = sum(1 for i in self.session.tracker.snapshot() if i.tier == "ram" and i.size >= SIZE)
        self.machine.used = self.base + resident * self.WEIGHT
        return self.machine.used

    def track(self, name, **options):
        value = np.random.default_rng(len(name)).random(SIZE // 8)
        return self.session.track(value, name=name, size=self.WEIGHT, **options)

    def sample(self):
        self.used()
        self.session.monitor.sample_now()
        return self.session.monitor.level

    def tiers(self) -> dict[str, str]:
        return {info.name: info.tier for info in self.session.tracker.snapshot()}


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.session.close()


def test_at_normal_nothing_is_touched(world):
    world.track("a")
    assert world.sample() == "normal"
    assert world.tiers() == {"a": "ram"}


def test_at_warning_the_lowest_priority_goes_first_and_release_stops_when_there_is_enough(world):
    for name, priority in (("high", 90), ("low", 1), ("mid", 50)):
        world.track(name, priority=priority)
    world.base = 500 * MIB  # 800 of 1024 MiB: 78 %; below 70 % means one must go
    assert world.sample() == "warning"
    assert world.tiers() == {"high": "ram", "low": "disk", "mid": "ram"}


def test_temp_buffers_are_released_for_good_and_variables_are_not(world):
    scratch = world.track("scratch", type="temp_buffers")
    world.track("table")
    world.base = 700 * MIB
    world.sample()
    assert world.tiers() == {"table": "disk"}
    with pytest.raises(ReleasedError, match=r"(warning|emergency): priority 10"):
        scratch.get()


def test_what_expired_goes_before_a_lower_priority(world):
    world.track("old", priority=90, ttl=5)
    world.track("new", priority=1)
    world.clock.advance(6)
    world.base = 580 * MIB
    world.sample()
    assert world.tiers() == {"old": "disk", "new": "ram"}


def test_what_is_in_use_is_left_alone_and_named_in_the_warning(world, caplog):
    handle = world.track("busy")
    world.base = 800 * MIB
    with handle, caplog.at_level(logging.WARNING, "memkit"):
        world.sample()
        assert world.tiers() == {"busy": "ram"}
    assert "busy (pinned)" in caplog.text


def test_what_could_not_be_moved_is_not_tried_at_every_reading_but_again_after_a_while(world):
    handle = world.track("shared")
    holder = [handle.get()]
    world.base = 750 * MIB
    for _ in range(5):
        world.clock.advance(5)
        world.sample()
    assert world.session.log.total("failed") == 1
    world.clock.advance(10)
    world.sample()
    assert world.session.log.total("failed") == 2
    holder.clear()
    world.clock.advance(31)
    world.sample()
    assert world.tiers() == {"shared": "disk"}


def test_the_warning_is_not_repeated_every_reading(world, caplog):
    world.base = 800 * MIB
    with caplog.at_level(logging.WARNING, "memkit"):
        for _ in range(10):
            world.clock.advance(5)
            world.sample()
        assert len(caplog.records) == 1
        world.clock.advance(400)
        world.sample()
        assert len(caplog.records) == 2


def test_hysteresis_keeps_the_level_until_usage_is_below_the_recovery_mark(world):
    world.base = 780 * MIB
    assert world.sample() == "warning"
    world.base = 730 * MIB  # 71 %: below warning, above recovery
    assert world.sample() == "warning"
    world.base = 700 * MIB
    assert world.sample() == "normal"


def test_an_emergency_moves_everything_that_is_not_in_use_until_the_reserve_is_free(world):
    for number in range(4):
        world.track(f"n{number}")
    world.base = 560 * MIB  # 960 MiB used: 94 %
    assert world.sample() == "emergency"
    assert sum(tier == "ram" for tier in world.tiers().values()) <= 1
    assert world.machine.limit - world.used() >= 128 * MIB, "the reserve of a 1 GiB machine is free"


def test_a_limit_that_is_far_exceeded_is_reached_at_once_not_by_and_by(world):
    for number in range(8):
        world.track(f"n{number}")
    world.session.reader.user_limit = 300 * MIB
    assert world.sample() == "emergency"
    assert world.used() <= 0.7 * 300 * MIB


def test_what_has_a_recipe_comes_back_when_it_has_been_calm_smallest_first(world):
    made = []

    def recipe(name):
        def make():
            made.append(name)
            return np.zeros(SIZE // 8)

        return make

    world.track("big", type="render_cache", reload=recipe("big"))
    world.track("small", type="render_cache", reload=recipe("small"))
    world.session.tracker.resize(world.session.tracker.get("small"), 50 * MIB, exact=True)
    world.base = 900 * MIB
    world.sample()
    assert set(world.tiers().values()) == {"unloaded"}
    world.base = 100 * MIB
    assert world.sample() == "normal"
    assert made == [], "calm must last a while"
    world.clock.advance(61)
    world.sample()
    assert made == ["small"], "one at a time, the smallest first"
    world.sample()
    assert made == ["small", "big"]
    assert set(world.tiers().values()) == {"ram"}


def test_a_reload_never_goes_past_the_recovery_mark(world):
    world.track("big", type="render_cache", reload=lambda: np.zeros(SIZE // 8))
    world.base = 900 * MIB
    world.sample()
    world.base = 650 * MIB  # 63 %; with 100 MiB more it would be 73 %
    world.sample()
    world.clock.advance(600)
    world.sample()
    assert world.tiers() == {"big": "unloaded"}


def test_a_recipe_that_fails_is_logged_and_loses_nothing(world, caplog):
    def recipe():
        raise OSError("the source is gone")

    handle = world.track("big", type="render_cache", reload=recipe)
    world.base = 900 * MIB
    world.sample()
    world.base = 0
    world.sample()
    world.clock.advance(61)
    world.sample()
    assert "the source is gone" in caplog.text
    assert world.tiers() == {"big": "unloaded"}
    with pytest.raises(ReloadError, match=r"'big' could not be made anew: .* OSError: the source is gone"):
        handle.get()


def test_expiry_follows_the_steps_of_the_type(world):
    handle = world.track("picture", type="render_cache")
    world.clock.advance(180)
    world.session.expire()
    assert world.tiers()["picture"] in ("compressed", "disk")
    world.clock.advance(179)
    world.session.expire()
    assert "picture" in world.tiers()
    world.clock.advance(1)
    world.session.expire()
    assert world.tiers() == {}
    with pytest.raises(ReleasedError, match="not used for 3 min"):
        handle.get()


def test_what_the_user_has_expire_says_so_and_not_that_its_time_was_over(world):
    handle = world.track("scratch", type="temp_buffers")
    assert world.session.expire("scratch").released == ("scratch",)
    with pytest.raises(ReleasedError, match="expired: asked for by you"):
        handle.get()


def test_a_recipe_brings_back_even_what_its_type_releases(world):
    handle = world.track("scratch", type="temp_buffers", reload=lambda: np.zeros(3))
    world.clock.advance(31)
    world.session.expire()
    assert world.tiers() == {"scratch": "unloaded"}
    assert handle.get().sum() == 0


def test_expiry_leaves_as_many_of_a_type_as_it_keeps_and_pressure_too(world):
    for number in range(3):
        world.track(f"shard-{number}", type="model_shards")
        world.clock.advance(1)
    world.clock.advance(600)
    report = world.session.expire()
    assert world.tiers() == {"shard-0": "disk", "shard-1": "disk", "shard-2": "ram"}
    assert [(item.name, item.reason) for item in report.skipped] == [("shard-2", "min_keep 1 of its type")]
    world.base = 900 * MIB
    world.sample()
    assert world.tiers()["shard-2"] == "ram"


def test_what_cannot_be_moved_stays_is_flagged_expired_and_says_so_once(world):
    def generator():
        yield from range(3)

    world.session.track(generator(), name="gen", ttl=5, size=SIZE)
    for _ in range(4):
        world.clock.advance(6)
        world.session.expire()
    (info,) = world.session.tracker.snapshot()
    assert (info.tier, info.state) == ("ram", "expired")
    assert [event.kind for event in world.session.log] == ["registered", "expired", "failed"]


def test_a_failing_on_release_leaves_the_resource_tracked_and_is_seen(world, caplog):
    def on_release(value):
        raise RuntimeError("not now")

    world.track("scratch", type="temp_buffers", on_release=on_release)
    world.clock.advance(31)
    world.session.expire()
    assert world.tiers() == {"scratch": "ram"}
    assert "not now" in caplog.text
    assert world.session.log.total("failed") == 1


def test_a_subscriber_of_samples_that_fails_does_not_stop_reclaim(world):
    def broken(notice):
        raise RuntimeError("mine")

    world.session.monitor.subscribe(broken, on="sample")
    world.track("a")
    world.base = 800 * MIB
    world.sample()
    assert world.tiers() == {"a": "disk"}
    assert len(world.session.monitor.errors) == 1


def test_reclaim_without_a_target_lets_everything_go_that_policies_allow(world):
    world.track("a")
    world.track("b", type="temp_buffers")
    report = world.session.reclaim()
    assert report.released == ("b",)
    assert report.demoted == ("a",)
    assert isinstance(world.session.reclaimer, Reclaim)


def test_the_log_says_the_level_before_what_was_done_about_it(world):
    world.track("scratch", type="temp_buffers")
    world.base = 700 * MIB
    world.sample()
    assert [event.kind for event in world.session.log] == ["registered", "level", "released"]
