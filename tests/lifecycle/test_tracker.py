"""The table of resources: names, access, expiry, pins, exclusive work, threads and forks."""

from __future__ import annotations

import gc
import os
import sys
import threading

import pytest

from memkit.config import Policy
from memkit.errors import MemkitError, PinnedError, ReleasedError, UnknownResourceError
from memkit.lifecycle.holders import Observed, Owned
from memkit.lifecycle.tracker import Tracker
from tests.fakes import Clock

SHORT = Policy("short", ttl=10.0)
LONG = Policy("long", ttl=100.0)
FOREVER = Policy("forever")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tracker(clock) -> Tracker:
    return Tracker(clock=clock)


def add(tracker: Tracker, name: str, policy: Policy = SHORT, value: object = None):
    return tracker.register(name, Owned(value), policy, size=100)


def names(resources) -> list[str]:
    return [resource.name for resource in resources]


# -- names ---------------------------------------------------------------------------------------------------------


def test_an_unknown_name_is_an_error_with_the_nearest_one(tracker):
    add(tracker, "frames")
    with pytest.raises(UnknownResourceError, match=r"'frmaes'.*did you mean 'frames'"):
        tracker.get("frmaes")
    for access in (tracker.touch, tracker.pin):
        with pytest.raises(UnknownResourceError):
            access("nothing")


def test_a_released_name_says_when_and_why(tracker):
    resource = add(tracker, "a")
    assert tracker.forget(resource, "released", "priority 10")
    with pytest.raises(ReleasedError, match=r"'a' was released at \d\d:\d\d:\d\d \(priority 10\)"):
        tracker.touch("a")


def test_registering_again_replaces_and_says_so(tracker):
    old = add(tracker, "a")
    new = add(tracker, "a", LONG)
    assert tracker.get("a") is new
    assert [event.kind for event in tracker.log] == ["registered", "replaced", "registered"]
    assert not tracker.forget(old, "released", "too late"), "the old record has nothing to say any more"
    assert tracker.get("a") is new


def test_tombstones_are_bounded(tracker):
    for number in range(1500):
        tracker.forget(add(tracker, f"n{number}"), "released", "")
    assert tracker.tombstone("n0") is None
    assert tracker.tombstone("n1499") is not None


# -- time to live --------------------------------------------------------------------------------------------------


def test_a_resource_is_due_at_its_deadline_not_after_it(tracker, clock):
    add(tracker, "a")
    clock.advance(10 - 1e-6)
    assert tracker.take_due() == []
    clock.advance(1e-6)
    assert names(tracker.take_due()) == ["a"]


def test_what_is_due_is_handed_out_once(tracker, clock):
    add(tracker, "a")
    clock.advance(20)
    assert names(tracker.take_due()) == ["a"]
    assert tracker.take_due() == []


def test_a_touch_begins_the_time_to_live_anew(tracker, clock):
    add(tracker, "a")
    clock.advance(9)
    tracker.touch("a")
    clock.advance(9)
    assert tracker.take_due() == []
    assert tracker.snapshot()[0].left == pytest.approx(1)


def test_what_expired_first_comes_first_across_different_ttls(tracker, clock):
    add(tracker, "long", LONG)
    clock.advance(95)
    add(tracker, "short")
    clock.advance(20)
    assert names(tracker.take_due()) == ["long", "short"]


def test_never_is_never(tracker, clock):
    add(tracker, "a", FOREVER)
    clock.advance(1e9)
    assert tracker.take_due() == []
    assert tracker.due_in() is None


def test_the_next_deadline_is_known(tracker, clock):
    add(tracker, "a", LONG)
    add(tracker, "b")
    clock.advance(4)
    assert tracker.due_in() == pytest.approx(6)
    clock.advance(400)
    assert tracker.due_in() == 0


def test_asking_after_the_deadline_finds_it_expired_whether_or_not_a_sweep_came_by(tracker, clock):
    asked = []

    def expire(resource):
        asked.append(resource.name)
        tracker.forget(resource, "released", "expired")

    tracker.expire = expire
    add(tracker, "a")
    clock.advance(10)
    with pytest.raises(ReleasedError):
        tracker.touch("a")
    assert asked == ["a"]


def test_steps_count_down_one_after_the_other(tracker, clock):
    add(tracker, "a")
    clock.advance(10)
    (resource,) = tracker.take_due()
    tracker.advance(resource, more=True)
    assert tracker.take_due() == []
    clock.advance(10)
    assert names(tracker.take_due()) == ["a"]
    tracker.advance(resource, more=False)
    clock.advance(1000)
    assert tracker.take_due() == []
    assert tracker.snapshot()[0].state == "expired"
    tracker.touch("a")
    assert (resource.step, tracker.snapshot()[0].state) == (0, "active")


def test_a_clock_that_jumps_after_a_suspended_night_expires_once_each(tracker, clock):
    for number in range(5):
        add(tracker, f"n{number}")
    clock.advance(12 * 3600)
    assert len(tracker.take_due()) == 5
    assert tracker.take_due() == []


# -- pins ----------------------------------------------------------------------------------------------------------


def test_a_pinned_resource_does_not_expire_and_its_time_begins_when_the_pin_ends(tracker, clock):
    add(tracker, "a")
    resource = tracker.pin("a")
    clock.advance(1000)
    assert tracker.take_due() == []
    tracker.touch("a")
    assert tracker.snapshot()[0].state == "pinned"
    tracker.unpin(resource)
    clock.advance(9)
    assert tracker.take_due() == []
    clock.advance(1)
    assert names(tracker.take_due()) == ["a"]


def test_pins_nest(tracker, clock):
    add(tracker, "a")
    resource = tracker.pin("a")
    tracker.pin("a")
    tracker.unpin(resource)
    clock.advance(1000)
    assert tracker.take_due() == []
    tracker.unpin(resource)
    with pytest.raises(MemkitError, match="not pinned"):
        tracker.unpin(resource)


def test_a_pin_holds_back_policy_and_user_but_not_access(tracker):
    resource = add(tracker, "a")
    tracker.pin("a")
    for by in ("policy", "user"):
        with pytest.raises(PinnedError), tracker.claim([resource], "spill", by):
            pytest.fail("must not be reached")
    with tracker.claim([resource], "restore", "access"):
        assert resource.state == "busy"


def test_a_running_cell_holds_back_policy_but_not_what_the_user_asks_for(tracker):
    resource = add(tracker, "a")
    tracker.pin("a", cell=True)
    with pytest.raises(PinnedError, match="running cell"), tracker.claim([resource], "spill", "policy"):
        pytest.fail("must not be reached")
    with tracker.claim([resource], "spill", "user"):
        assert resource.state == "busy"


def test_unpinning_what_was_released_meanwhile_is_harmless(tracker, clock):
    resource = add(tracker, "a")
    tracker.pin("a", cell=True)
    tracker.forget(resource, "released", "by the user, in the cell")
    tracker.unpin(resource, cell=True)
    clock.advance(1000)
    assert tracker.take_due() == []
    assert len(tracker) == 0


# -- exclusive work ------------------------------------------------------------------------------------------------


def test_a_second_claim_waits_until_the_first_is_done(tracker):
    resource = add(tracker, "a")
    order = []

    def second():
        with tracker.claim([resource], "restore", "user"):
            order.append("second")

    with tracker.claim([resource], "spill", "user"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.05)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]


def test_a_policy_never_waits(tracker):
    resource = add(tracker, "a")
    with tracker.claim([resource], "spill", "user"):
        thread_saw = []

        def policy():
            try:
                with tracker.claim([resource], "release", "policy"):
                    thread_saw.append("in")
            except PinnedError as error:
                thread_saw.append(str(error))

        thread = threading.Thread(target=policy)
        thread.start()
        thread.join(5)
        assert "being worked on (spill)" in thread_saw[0]


def test_a_pin_cancels_the_work_under_way_and_waits_for_it(tracker):
    resource = add(tracker, "a")
    started, cancelled = threading.Event(), []

    def spill():
        with tracker.claim([resource], "spill", "policy") as operation:
            started.set()
            while not operation.cancelled:
                pass
            cancelled.append(True)

    thread = threading.Thread(target=spill)
    thread.start()
    started.wait(5)
    tracker.pin("a", cell=True)
    assert cancelled == [True]
    thread.join(5)


def test_claims_of_several_are_all_or_nothing(tracker):
    free, held = add(tracker, "a"), add(tracker, "b")
    tracker.pin("b")
    with pytest.raises(PinnedError), tracker.claim([free, held], "spill", "user"):
        pytest.fail("must not be reached")
    assert free.state == "active"


def test_claiming_what_has_left_says_so(tracker):
    resource = add(tracker, "a")
    tracker.forget(resource, "released", "over")
    with pytest.raises(ReleasedError), tracker.claim([resource], "spill", "user"):
        pytest.fail("must not be reached")


def test_a_thread_that_works_on_a_resource_can_touch_and_pin_it(tracker):
    resource = add(tracker, "a")
    with tracker.claim([resource], "release", "user"):
        tracker.touch("a")
        tracker.unpin(tracker.pin("a"))


# -- stored bytes --------------------------------------------------------------------------------------------------


def test_stored_bytes_of_a_group_are_given_up_with_the_last_member(clock):
    discarded = []
    tracker = Tracker(clock=clock, discard=discarded.append)
    a, b, stored = add(tracker, "a"), add(tracker, "b"), object()
    for resource in (a, b):
        tracker.settle(resource, "disk", stored, kind="spilled")
    tracker.settle(a, "ram", None, kind="restored")
    assert discarded == []
    tracker.forget(b, "released", "")
    assert discarded == [stored]


@pytest.mark.parametrize(("tier", "stored"), [("disk", "new"), ("ram", None)])
def test_an_interrupt_while_settling_never_leaves_a_tier_without_its_bytes(clock, tier, stored):
    """Where each step is interrupted in turn, what is recorded stays true."""
    tracker = Tracker(clock=clock)
    for number in range(40):
        resource = add(tracker, "a")
        if stored is None:
            tracker.settle(resource, "disk", "old", kind="spilled")
        steps = iter(range(number))

        def trace(frame, event, arg, steps=steps):
            frame.f_trace_opcodes = True
            if event == "opcode" and frame.f_code.co_name == "settle" and next(steps, None) is None:
                raise KeyboardInterrupt
            return trace

        sys.settrace(trace)
        try:
            tracker.settle(resource, tier, stored, kind="spilled")
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        assert resource.stored is not None or not resource.demoted
        tracker.touch("a")


def test_a_replaced_resource_gives_up_its_stored_bytes(clock):
    discarded = []
    tracker = Tracker(clock=clock, discard=discarded.append)
    stored = object()
    tracker.settle(add(tracker, "a"), "disk", stored, kind="spilled")
    add(tracker, "a")
    assert discarded == [stored]


# -- foreign code --------------------------------------------------------------------------------------------------


class Hostile:
    """Every special method that a tracker could stumble over raises."""

    def __eq__(self, other):
        raise RuntimeError("eq")

    def __hash__(self):
        raise RuntimeError("hash")

    def __bool__(self):
        raise RuntimeError("bool")

    def __repr__(self):
        raise RuntimeError("repr")

    def __len__(self):
        raise RuntimeError("len")


def test_hostile_values_are_never_asked_anything(tracker, clock):
    value = Hostile()
    resource = add(tracker, "a", SHORT, value)
    tracker.touch("a")
    tracker.unpin(tracker.pin("a"))
    clock.advance(100)
    assert names(tracker.take_due()) == ["a"]
    with tracker.claim([resource], "release", "policy"):
        resource.holder.clear()
    assert resource.holder.references(value) == 0
    assert tracker.snapshot()[0].name == "a"


def test_an_observed_value_that_dies_deregisters_itself_even_under_the_lock(tracker):
    class Thing:
        pass

    thing = Thing()
    holder = Observed(thing)
    resource = tracker.register("thing", holder, FOREVER)
    holder.on_gone = lambda: tracker.observed_gone(resource)
    with tracker._lock:  # a collection may run at any allocation, also there
        del thing
        gc.collect()
    assert tracker.snapshot() == ()
    assert [event.kind for event in tracker.log] == ["registered", "deleted"]


# -- threads and forks ---------------------------------------------------------------------------------------------


def test_many_threads_leave_a_consistent_table(tracker):
    errors = []
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def work(number):
        try:
            for i in range(300):
                name = f"n{(number + i) % 7}"
                resource = add(tracker, name)
                try:
                    tracker.touch(name)
                    tracker.unpin(tracker.pin(name))
                except LookupError:
                    pass
                except MemkitError as error:  # another thread has registered the name anew in between
                    if "not pinned" not in str(error):
                        raise
                if i % 3 == 0:
                    tracker.forget(resource, "released", "")
        except BaseException as error:  # noqa: BLE001 - reported by the test
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    sys.setswitchinterval(switch)
    assert errors == []
    queued = {name for queue in tracker._expiry._queues.values() for name in queue}
    assert queued == {r.name for r in tracker.resources() if not r.held}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_in_the_middle_of_a_sweep_leaves_a_working_tracker_in_the_child(tracker, clock):
    resource = add(tracker, "a")
    inside, leave = threading.Event(), threading.Event()

    def sweep():
        with tracker.claim([resource], "spill", "policy"):
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=sweep)
    thread.start()
    inside.wait(5)
    child = os.fork()
    if child == 0:
        ok = resource.operation is None
        tracker.touch("a")
        with tracker.claim([resource], "spill", "user"):
            pass
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    leave.set()
    thread.join(5)
