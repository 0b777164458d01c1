"""The contract of every way to hold a value."""

from __future__ import annotations

import gc
import weakref

import pytest

from memkit.lifecycle.holders import GONE, External, Namespace, Observed, Owned, Variable


class Thing:
    """Has weak references, and an equality that must never be asked."""

    def __eq__(self, other):
        raise AssertionError("holders compare by identity")

    __hash__ = object.__hash__


class Setup:
    """A holder with a value, and what keeps the value alive besides it."""

    def __init__(self, make):
        self.value = Thing()
        self.holder = make(self.value)


def variable(value):
    return Variable(Namespace({"x": value, "other": 1}), "x")


HOLDERS = {
    "owned": Owned,
    "variable": variable,
    "observed": Observed,
    "external": lambda value: External(lambda: 7),
}
HOLDING = ["owned", "variable"]


@pytest.fixture(params=HOLDERS)
def setup(request) -> Setup:
    return Setup(HOLDERS[request.param])


@pytest.fixture(params=HOLDING)
def holding(request) -> Setup:
    return Setup(HOLDERS[request.param])


def test_kind_tier_and_demotability_are_stated(setup):
    assert HOLDERS[setup.holder.kind]
    assert setup.holder.tier in ("ram", "external")
    assert setup.holder.demotable == (setup.holder.kind in HOLDING)


def test_clearing_twice_is_harmless(setup):
    setup.holder.clear()
    setup.holder.clear()


def test_a_cleared_holder_accounts_for_no_reference(setup):
    setup.holder.clear()
    assert setup.holder.references(setup.value) == 0


def test_what_is_held_is_handed_out_and_cleared_for_good(holding):
    assert holding.holder.get() is holding.value
    assert holding.holder.references(holding.value) == 1
    dead = weakref.ref(holding.value)
    del holding.value
    holding.holder.clear()
    gc.collect()
    assert holding.holder.get() is GONE
    assert dead() is None, "the holder kept the value alive"


def test_what_is_placed_is_held(holding):
    holding.holder.clear()
    fresh = Thing()
    holding.holder.place(fresh)
    assert holding.holder.get() is fresh


def test_a_variable_lives_in_its_namespace():
    names = {}
    holder = Variable(Namespace(names), "x")
    assert holder.get() is GONE
    holder.place(5)
    assert names == {"x": 5}
    holder.clear()
    assert names == {}


def test_clearing_a_variable_leaves_other_names_alone():
    value = Thing()
    names = {"x": value, "alias": value}
    Variable(Namespace(names), "x").clear()
    assert names == {"alias": value} or names["alias"] is value


def test_clearing_a_variable_has_the_front_end_forget_the_value():
    class Keeper:
        forgotten: list = []  # noqa: RUF012

        def references(self, value):
            return 2

        def forget(self, value):
            self.forgotten.append(value)

        def forget_traceback(self, value):
            return False

    value = Thing()
    holder = Variable(Namespace({"x": value}, Keeper()), "x")
    assert holder.references(value) == 3
    holder.clear()
    assert Keeper.forgotten[0] is value


def test_an_observed_value_is_not_kept_alive_and_says_when_it_has_gone():
    gone = []
    value = Thing()
    holder = Observed(value, lambda: gone.append(True))
    assert holder.get() is value
    del value
    gc.collect()
    assert holder.get() is GONE
    assert gone == [True]


def test_an_observed_value_cannot_be_placed():
    with pytest.raises(TypeError):
        Observed(Thing()).place(Thing())


def test_an_external_resource_has_no_value_here():
    holder = External(lambda: 7)
    assert holder.get() is None
    assert holder.measure is not None
    assert holder.measure() == 7
