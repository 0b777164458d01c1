"""Which goes first, and why."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memkit.config import Policy
from memkit.lifecycle.order import by_policy, in_emergency, plan, plan_release
from memkit.lifecycle.resource import ResourceInfo

BASE = ResourceInfo(
    name="x", policy=Policy("t", on_pressure=("spill",)), size=100, exact=True, tier="ram", state="active", idle=0.0,
    age=0.0, left=None, uses=0, pins=0, cells=0, kind="owned", owner="", tags=frozenset(), metadata={},
    mapped=False, in_memory=100, reloadable=False,
)  # fmt: skip


def info(name: str, *, priority: int = 40, **changes) -> ResourceInfo:
    policy = {k: changes.pop(k) for k in ("on_pressure", "on_expire", "min_keep", "type") if k in changes}
    return dataclasses.replace(
        BASE, name=name, policy=dataclasses.replace(BASE.policy, priority=priority, **policy), **changes
    )


def order(infos, choose=by_policy) -> list[str]:
    return [step.name for step in plan(infos, choose).steps]


def why_not(infos, choose=by_policy) -> dict[str, str]:
    return {item.name: item.reason for item in plan(infos, choose).skipped}


def test_expired_goes_before_unexpired_whatever_its_priority():
    assert order([info("low", priority=1), info("old", priority=99, state="expired")]) == ["old", "low"]


def test_the_lower_priority_goes_first():
    assert order([info("b", priority=20), info("c", priority=30), info("a", priority=10)]) == ["a", "b", "c"]


def test_of_equal_priority_the_longest_unused_goes_first():
    assert order([info("new", idle=1), info("old", idle=100), info("mid", idle=50)]) == ["old", "mid", "new"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pins": 1}, "pinned"),
        ({"cells": 1}, "in use by the running cell"),
        ({"state": "busy"}, "being worked on"),
        ({"tier": "disk"}, "already on disk"),
        ({"tier": "unloaded"}, "already unloaded"),
        ({"on_pressure": ("keep",)}, "type t says keep"),
        ({"kind": "observed"}, "held by your own code"),
        ({"mapped": True}, "mapped from its file, which the system takes back by itself"),
    ],
)
def test_what_a_policy_leaves_alone_has_a_reason(changes, reason):
    assert why_not([info("x", **changes)]) == {"x": reason}
    assert order([info("x", **changes)]) == []


def test_min_keep_leaves_those_that_would_go_last():
    infos = [info("a", idle=9, min_keep=2), info("b", idle=5, min_keep=2), info("c", idle=1, min_keep=2)]
    assert order(infos) == ["a"]
    assert why_not(infos) == {"b": "min_keep 2 of type t", "c": "min_keep 2 of type t"}


def test_min_keep_counts_only_what_is_in_memory():
    infos = [info("a", idle=9, min_keep=1, tier="disk"), info("b", idle=5, min_keep=1)]
    assert order(infos) == []


def test_an_emergency_spills_even_what_a_type_keeps():
    (step,) = plan([info("x", on_pressure=("keep",))], in_emergency).steps
    assert step.action == "spill"


def test_an_emergency_moves_even_what_is_mapped():
    assert order([info("x", mapped=True)], in_emergency) == ["x"]


def test_what_has_a_recipe_is_unloaded_rather_than_released():
    (step,) = plan([info("x", on_pressure=("release",), reloadable=True)]).steps
    assert step.action == "unload"
    (step,) = plan([info("x", on_pressure=("release",))]).steps
    assert step.action == "release"


def test_what_has_expired_is_treated_as_its_type_says_of_expiry():
    (step,) = plan([info("x", on_expire=("compress", "release"), state="expired")]).steps
    assert step.action == "release"
    (step,) = plan([info("x", on_expire=("keep",), state="expired")]).steps
    assert step.action == "spill", "kept at its expiry, it still goes under pressure, and first"


def test_what_the_user_chose_is_held_back_only_by_pins():
    infos = [info("a", cells=1), info("b", tier="disk"), info("c", min_keep=5), info("d", pins=1)]
    planned = plan_release(infos)
    assert {step.name for step in planned.steps} == {"a", "b", "c"}
    assert {step.action for step in planned.steps} == {"release"}
    assert [item.name for item in planned.skipped] == ["d"]


def test_every_step_says_why():
    first, second = plan([info("a", state="expired", idle=75), info("b", priority=7, idle=18)]).steps
    assert first.reason == "expired, unused for 1:15"
    assert second.reason == "priority 7, unused for 0:18"


def test_until_takes_as_many_steps_as_should_free_the_bytes():
    planned = plan([info(n, idle=-i) for i, n in enumerate("abcd")])
    assert [step.name for step in planned.until(150).steps] == ["a", "b"]
    assert planned.until(150).expected == 200
    assert planned.until(0).steps == ()
    assert len(planned.until(10**9).steps) == 4
    assert {item.reason for item in planned.until(150).skipped} == {"not needed"}


@given(
    st.lists(
        st.builds(
            info,
            st.text("abcdefgh", min_size=1, max_size=8),
            priority=st.integers(0, 5),
            idle=st.floats(0, 100),
            state=st.sampled_from(["active", "expired", "demoted"]),
            pins=st.integers(0, 1),
            min_keep=st.integers(0, 2),
        ),
        unique_by=lambda i: i.name,
        max_size=12,
    )
)
def test_every_resource_is_a_step_or_skipped_with_a_reason_and_order_holds(infos):
    planned = plan(infos)
    mentioned = [step.name for step in planned.steps] + [item.name for item in planned.skipped]
    assert sorted(mentioned) == sorted(i.name for i in infos)
    assert all(item.reason for item in planned.skipped)
    by_name = {i.name: i for i in infos}
    ranks = [(by_name[s.name].state != "expired", by_name[s.name].priority) for s in planned.steps]
    assert ranks == sorted(ranks)
