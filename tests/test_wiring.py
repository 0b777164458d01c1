"""The Python API: handles, releases that tell the truth, demotion and restoration of what memkit owns."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest

import memkit
from memkit import api, config
from memkit.errors import (
    ConfigError,
    MemkitError,
    PinnedError,
    ReleasedError,
    ReleaseError,
    SharedMemoryError,
    StoreFullError,
    UnitError,
    UnknownResourceError,
)
from memkit.memory import heap
from memkit.units import MIB
from memkit.wiring import Session

SIZE = 32 * MIB


@pytest.fixture
def session(tmp_path, request):
    """The default session of `memkit.*`, without its thread, storing in the test's folder."""
    heap.give_back()  # so that what is measured is what this test does
    store = {"directory": str(tmp_path), **getattr(request, "param", {})}
    made = Session(config.load(overrides=[("test", {"store": store})]))
    api.use(made)
    yield made
    made.close()
    api.use(None)


def array(size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(1).random(size // 8)


# -- tracking ------------------------------------------------------------------------------------------------------


def test_tracking_returns_a_handle_that_knows_everything(session):
    handle = memkit.track(array(), name="frames", type="render_cache", tags=["a"], metadata={"camera": 3}, owner="me")
    info = handle.info
    assert (info.name, info.type, info.priority, info.ttl, info.kind) == ("frames", "render_cache", 20, 180, "owned")
    assert SIZE <= info.size < SIZE + 1000
    assert (info.tier, info.state, info.owner, info.tags, info.metadata) == (
        "ram", "active", "me", {"a"}, {"camera": 3},
    )  # fmt: skip
    assert handle.name == "frames"


def test_names_are_made_up_where_none_is_given(session):
    assert [memkit.track([i], type="audio_cache").name for i in range(2)] == ["audio_cache-1", "audio_cache-2"]


def test_a_handle_does_not_keep_a_released_value_alive(session):
    handle = memkit.track(array())
    reference = weakref.ref(handle.get())
    memkit.release(handle.name)
    gc.collect()
    assert reference() is None
    with pytest.raises(ReleasedError, match="was released at"):
        handle.get()


def test_a_lease_holds_and_its_end_counts_as_the_last_use(session):
    handle = memkit.track([1, 2])
    with handle as value:
        assert value == [1, 2]
        assert handle.info.state == "pinned"
        with pytest.raises(PinnedError):
            memkit.spill(handle.name)
        assert memkit.release(handle.name).skipped[0].reason == "pinned"
    assert handle.info.state == "active"
    assert handle.info.uses == 1


def test_a_replaced_handle_says_so_and_touches_nothing_of_the_new_one(session):
    old = memkit.track([1], name="x")
    memkit.track([2], name="x")
    for use in (old.get, old.touch, old.release, old.spill, old.pin, lambda: old.info):
        with pytest.raises(ReleasedError, match="replaced"):
            use()
    assert "replaced" in repr(old)
    assert memkit.handle("x").get() == [2]


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"type": "nosuch"}, ConfigError, "no type 'nosuch'.*known: audio_cache"),
        ({"ttl": "5 parsecs"}, UnitError, "not a duration"),
        ({"ttl": -1}, UnitError, "zero or more"),
        ({"ttl": 0}, ConfigError, "ttl 0"),
        ({"priority": "high"}, ConfigError, "not a whole number"),
        ({"name": ""}, MemkitError, "not a name"),
        ({"name": 5}, MemkitError, "not a name"),
        ({"hold": "variable", "name": "nosuch"}, MemkitError, "no variable 'nosuch'"),
        ({"hold": "observed"}, MemkitError, "a int cannot be observed"),
    ],
)
def test_wrong_arguments_are_refused_and_register_nothing(session, options, error, match):
    with pytest.raises(error, match=match):
        memkit.track(5, **options)
    assert len(session.tracker) == 0


def test_ttl_and_priority_override_the_type_for_one_resource(session):
    memkit.track([1], name="a", type="temp_buffers", ttl=None, priority=99)
    memkit.track([1], name="b", type="temp_buffers")
    a, b = session.tracker.snapshot()
    assert (a.ttl, a.priority, b.ttl, b.priority) == (None, 99, 30, 10)


def test_observed_values_deregister_themselves(session):
    class Thing:
        pass

    thing = Thing()
    handle = memkit.track(thing, name="thing", hold="observed")
    assert handle.get() is thing
    del thing
    gc.collect()
    assert memkit.status().resources == ()
    with pytest.raises(UnknownResourceError):
        handle.touch()


def test_a_tensor_on_a_gpu_is_in_vram_and_is_not_moved_to_disk(session, monkeypatch):
    class Tensor:
        device = type("device", (), {"type": "cuda"})

    fake = type(sys)("torch")
    fake.Tensor = Tensor
    monkeypatch.setitem(sys.modules, "torch", fake)
    memkit.track(Tensor(), name="weights", size=MIB)
    assert memkit.status().resources[0].tier == "vram"


def test_external_resources_are_measured_and_released_by_callbacks(session):
    calls = []
    callbacks = {"on_release": calls.append, "reload": lambda: calls.append("load")}
    handle = memkit.track(name="ollama", hold="external", size=lambda: 5 * MIB, **callbacks)
    assert (handle.info.tier, handle.info.size) == ("external", 5 * MIB)
    memkit.unload("ollama")
    assert (calls, handle.info.tier) == ([None], "unloaded")
    memkit.restore("ollama")
    assert (calls, handle.info.tier) == ([None, "load"], "external")
    memkit.release("ollama")
    assert calls == [None, "load", None]


# -- truthful release ----------------------------------------------------------------------------------------------


def test_a_release_reports_what_was_measured(session):
    memkit.track(array(), name="x")
    report = memkit.release("x")
    assert report.released == ("x",)
    assert SIZE <= report.expected < SIZE + 1000
    assert 0.95 * SIZE < report.measured < 1.2 * SIZE
    assert report.seconds > 0
    assert report.still_held == ()
    assert set(report.to_dict()) >= {"released", "expected", "measured", "seconds", "still_held"}


def test_what_is_still_held_frees_nothing_and_the_holder_is_named(session):
    def keep():
        pass

    value = array()
    keep.last = value
    session.space.variables["keep"] = keep
    memkit.track(value, name="x")
    del value
    report = memkit.release("x")
    assert report.measured < 0.1 * SIZE
    assert [item.name for item in report.still_held] == ["x"]
    assert "keep" in " ".join(report.still_held[0].holders)
    assert "keep" in str(report)
    assert report.to_dict()["still_held"][0]["name"] == "x"


def test_another_resource_that_holds_the_value_is_named(session):
    value = array()
    memkit.track(value, name="x")
    memkit.track(value, name="y")
    del value
    with pytest.raises(SharedMemoryError, match=r"held by resource `y`"):
        memkit.spill("x")
    assert memkit.release("x").still_held[0].holders == ("resource `y`",)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"type": "temp_buffers"}, {"tmp_a", "tmp_b"}),
        ({"pattern": "tmp_*"}, {"tmp_a", "tmp_b"}),
        ({"below_priority": 25}, {"tmp_a", "tmp_b", "pic"}),
        ({"all": True}, {"tmp_a", "tmp_b", "pic", "table"}),
        ({"type": "temp_buffers", "pattern": "*_a"}, {"tmp_a"}),
    ],
)
def test_selections(session, selection, expected):
    for name, type_ in (
        ("tmp_a", "temp_buffers"),
        ("tmp_b", "temp_buffers"),
        ("pic", "render_cache"),
        ("table", "general"),
    ):
        memkit.track([name], name=name, type=type_)  # fmt: skip
    assert {step.name for step in memkit.release(**selection, dry_run=True).steps} == expected
    assert len(session.tracker) == 4
    assert set(memkit.release(**selection).released) == expected


def test_names_may_be_patterns_and_a_missing_plain_name_stops_before_anything_is_done(session):
    memkit.track([1], name="a1")
    memkit.track([1], name="a2")
    with pytest.raises(UnknownResourceError):
        memkit.release("a1", "nosuch")
    assert len(session.tracker) == 2
    assert set(memkit.release("a*").released) == {"a1", "a2"}


def test_bytes_alone_follow_the_policies_so_that_nothing_is_lost(session):
    table = memkit.track(array(), name="table")
    memkit.track(array(), name="scratch", type="temp_buffers")
    report = memkit.release(bytes=2 * SIZE - MIB)
    assert (report.released, report.demoted) == (("scratch",), ("table",))
    assert np.array_equal(table.get(), array())


def test_bytes_stop_as_soon_as_enough_was_measured(session):
    for name, priority in (("a", 1), ("b", 2), ("c", 3)):
        memkit.track(array(), name=name, type="temp_buffers", priority=priority)
    report = memkit.release(bytes="20MiB")
    assert report.released == ("a",)
    assert {item.reason for item in report.skipped} == {"not needed"}


def test_releasing_nothing_in_particular_is_refused(session):
    with pytest.raises(MemkitError, match="release what"):
        memkit.release()


def test_a_failing_on_release_is_raised_and_the_resource_stays_with_the_others_released(session, caplog):
    def on_release(value):
        raise RuntimeError("still in use")

    memkit.track([1], name="bad", on_release=on_release)
    memkit.track([1], name="good")
    with pytest.raises(ReleaseError, match=r"'bad' was not released.*still in use") as caught:
        memkit.release("bad", "good")
    assert caught.value.report.released == ("good",)
    assert memkit.handle("bad").get() == [1]
    assert "still in use" in caplog.text


def test_on_release_is_called_once_with_the_value(session):
    calls = []
    memkit.track([1], name="x", on_release=calls.append)
    memkit.release("x")
    session.expire()
    assert calls == [[1]]


def test_on_release_may_use_memkit(session):
    memkit.track([1], name="child")
    memkit.track([2], name="parent", on_release=lambda value: memkit.release("child"))
    memkit.release("parent")
    assert len(session.tracker) == 0


class Hostile:
    """What can go wrong in a value does, when it is looked at or goes."""

    def __init__(self):
        self.payload = bytearray(1000)

    def __del__(self):
        raise RuntimeError("del")

    def __eq__(self, other):
        raise RuntimeError("eq")

    __hash__ = None  # type: ignore[assignment]

    def __len__(self):
        raise RuntimeError("len")

    def __bool__(self):
        raise RuntimeError("bool")

    @property
    def nbytes(self):
        time.sleep(60)

    def __sizeof__(self):
        raise RuntimeError("sizeof")

    def __reduce_ex__(self, protocol):
        raise RuntimeError("pickling")

    def __repr__(self):
        raise RuntimeError("repr")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_hostile_values_are_sized_at_once_cannot_be_moved_and_can_be_released(session):
    began = time.monotonic()
    handle = memkit.track(Hostile(), name="x")
    assert handle.info.size >= 1000
    with pytest.raises(MemkitError, match="x"):
        memkit.spill("x")
    assert handle.info.tier == "ram"
    assert "x" in str(memkit.status())
    assert memkit.release("x").released == ("x",)
    gc.collect()
    assert time.monotonic() - began < 10


# -- demotion and restoration --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["spill", "compress"])
def test_what_was_moved_comes_back_equal_and_memory_was_free_meanwhile(session, how):
    memkit.track(np.zeros(10**6), name="warm")  # the first of its kind also loads code
    getattr(memkit, how)("warm")
    memkit.release("warm")
    value = np.repeat(np.arange(SIZE // 80.0), 10)
    expected = value.copy()
    handle = memkit.track(value, name="x")
    del value
    report = getattr(memkit, how)("x")
    assert report.demoted == ("x",)
    assert report.measured > 0.6 * SIZE
    assert handle.info.state == "demoted"
    assert memkit.status().tiers["disk" if how == "spill" else "compressed"] > 0
    assert np.array_equal(handle.get(), expected)
    assert handle.info.tier == "ram"
    assert memkit.status().tiers["disk"] == memkit.status().tiers["compressed"] == 0


def test_what_would_not_shrink_is_spilled_instead(session):
    handle = memkit.track(array(), name="x")
    memkit.compress("x")
    assert handle.info.tier == "disk"


def test_releasing_what_is_compressed_expects_the_packed_bytes(session):
    memkit.track(np.zeros(SIZE // 8), name="x")
    memkit.compress("x")
    packed = memkit.status().tiers["compressed"]
    assert 0 < packed < MIB
    assert memkit.release("x").expected == packed
    assert memkit.status().tiers["compressed"] == 0


def test_compressed_goes_on_to_disk_without_coming_back_in_between(session):
    handle = memkit.track(np.zeros(SIZE // 8), name="x")
    memkit.compress("x")
    assert handle.info.tier == "compressed"
    memkit.spill("x")
    assert handle.info.tier == "disk"
    assert memkit.status().tiers["compressed"] == 0
    assert handle.get().sum() == 0


def test_a_group_may_mix_what_is_compressed_with_what_is_not(session):
    a = memkit.track(np.zeros(SIZE // 8), name="a")
    b = memkit.track(np.ones(SIZE // 8), name="b")
    memkit.compress("a")
    memkit.spill("a", "b")
    assert (a.info.tier, b.info.tier) == ("disk", "disk")
    assert (a.get().sum(), b.get().sum()) == (0, SIZE // 8)


def test_a_compressed_group_goes_to_disk_as_one_and_still_shares_its_memory(session):
    base = np.zeros(SIZE // 8)
    a, b = memkit.track(base, name="a"), memkit.track(base[: SIZE // 16], name="b")
    del base
    memkit.compress("a", "b")
    assert (a.info.tier, b.info.tier) == ("compressed", "compressed")
    memkit.spill("a", "b")
    assert (a.info.tier, b.info.tier) == ("disk", "disk")
    assert np.shares_memory(a.get(), b.get())
    memkit.compress("a", "b")
    memkit.spill("b")
    assert (a.info.tier, b.info.tier) == ("disk", "disk"), "what shares memory stays together"


def test_unloading_a_group_drops_those_with_a_recipe_and_spills_the_others(session):
    a = memkit.track([1], name="a", reload=lambda: [1])
    b = memkit.track([2], name="b")
    memkit.unload("a", "b")
    assert (a.info.tier, b.info.tier) == ("unloaded", "disk")
    assert (a.get(), b.get()) == ([1], [2])


def test_moving_twice_and_restoring_twice_are_harmless(session):
    handle = memkit.track([1, 2], name="x")
    memkit.spill("x")
    memkit.spill("x")
    assert memkit.restore().restored == ("x",)
    assert memkit.restore("x").skipped[0].reason == "is in memory already"
    assert handle.get() == [1, 2]


def test_unload_drops_what_has_a_recipe_and_spills_what_has_none(session):
    made = []
    a = memkit.track([1], name="a", type="model_shards", reload=lambda: made.append(1) or [1])
    b = memkit.track([2], name="b", type="model_shards")
    memkit.unload("a")
    memkit.unload("b")
    assert (a.info.tier, b.info.tier) == ("unloaded", "disk")
    assert (a.get(), b.get(), made) == ([1], [2], [1])


@pytest.mark.parametrize("session", [{"max_bytes": "1MiB"}], indirect=True)
def test_a_full_disk_leaves_the_value_where_it_is(session):
    handle = memkit.track(array(), name="x")
    with pytest.raises(StoreFullError, match=r"store\.max_bytes"):
        memkit.spill("x")
    assert handle.info.tier == "ram"
    assert handle.info.state == "active"
    assert np.array_equal(handle.get(), array())
    assert memkit.status().tiers["disk"] == 0


def test_a_lease_wins_over_a_demotion_under_way(session, monkeypatch):
    handle = memkit.track(array(), name="x")
    inside, seen = threading.Event(), []
    real = session.store.spill

    def slow(values, *, cancelled, **options):
        inside.set()
        deadline = time.monotonic() + 10
        while not cancelled() and time.monotonic() < deadline:
            time.sleep(0.001)
        seen.append(cancelled())
        return real(values, cancelled=cancelled, **options)

    monkeypatch.setattr(session.store, "spill", slow)
    thread = threading.Thread(target=lambda: session.reclaim())
    thread.start()
    inside.wait(10)
    with handle as value:
        assert handle.info.tier == "ram"
        assert value[0] == array(8)[0]
    thread.join(10)
    assert seen == [True]
    assert session.store.bytes_on_disk == 0


@pytest.mark.parametrize("where", ["spill", "load"])
def test_an_interrupt_in_the_middle_loses_nothing_and_leaves_nothing_behind(session, monkeypatch, where):
    handle = memkit.track(array(), name="x")
    if where == "load":
        memkit.spill("x")
    real = getattr(session.store, where)

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(session.store, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        memkit.spill("x") if where == "spill" else memkit.restore("x")
    assert handle.info.state in ("active", "demoted")
    monkeypatch.setattr(session.store, where, real)
    assert np.array_equal(handle.get(), array())
    memkit.spill("x")
    assert np.array_equal(handle.get(), array())


def test_interrupts_at_any_moment_of_a_real_spill_and_restore_lose_nothing(session, monkeypatch):
    """Ctrl-C is raised between any two bytecodes; whenever it comes, the value is in memory or complete on disk."""
    # One that hits the callback of a weak reference goes there, and pytest would keep it with all frames and files.
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    value = array(4 * MIB)
    handle = memkit.track(value.copy(), name="x")
    memkit.spill("x")  # makes the session's folder, whose own setting up is another matter
    caught = 0
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    for delay in np.linspace(0.0002, 0.03, 40):
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, delay)
                memkit.spill("x")
                memkit.restore("x")
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            caught += 1
        assert handle.info.state in ("active", "demoted")
        assert np.array_equal(handle.get(), value)
    signal.signal(signal.SIGALRM, previous)
    assert caught > 5
    memkit.release("x")
    assert session.store.bytes_on_disk == 0


# -- life ----------------------------------------------------------------------------------------------------------


def test_expiry_needs_nobody_to_sweep(session):
    session.start()
    memkit.track([1], name="x", type="temp_buffers", ttl=0.05)
    deadline = time.monotonic() + 5
    while "x" in session.tracker and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "x" not in session.tracker


def test_closing_ends_the_thread_and_removes_what_was_spilled(session, tmp_path):
    session.start()
    memkit.track(array(), name="x")
    memkit.spill("x")
    folder = session.store.directory
    assert folder.exists()
    session.close()
    session.close()
    assert not folder.exists()
    assert not session.monitor.running


def test_what_a_killed_kernel_left_behind_is_removed_by_the_next_start_and_a_live_one_s_is_not(session, tmp_path):
    code = textwrap.dedent("""
        import memkit, os, signal, sys
        memkit.track(list(range(100_000)), name="x")
        memkit.spill("x")
        print(memkit.session().store.directory, flush=True)
        sys.stdin.readline()
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    env = {**os.environ, "MEMKIT_STORE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, text=True, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        left = Path(other.stdout.readline().strip())
        session.start()
        deadline = time.monotonic() + 5
        while session.monitor.latest is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert list(left.glob("*.values")), "it is alive, and so are its values"
        other.communicate("die\n")
    assert list(left.glob("*.values")), "it was killed and could not tidy up"
    fresh = Session(session.settings)
    fresh.start()
    deadline = time.monotonic() + 5
    while left.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    fresh.close()
    assert not left.exists()


def test_the_default_session_is_made_on_first_use_and_ends_with_the_program(tmp_path):
    code = textwrap.dedent("""
        import memkit, threading
        handle = memkit.track(list(range(1000)), name="x")
        memkit.spill("x")
        print(memkit.session().store.directory, memkit.session().monitor.running)
    """)
    env = {**os.environ, "MEMKIT_STORE_DIR": str(tmp_path)}
    out = subprocess.check_output([sys.executable, "-c", code], text=True, env=env)
    folder, running = out.split()
    assert folder.startswith(str(tmp_path))
    assert running == "True"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_forked_child_can_read_and_removes_nothing_of_its_parent(session):
    handle = memkit.track(array(MIB), name="x")
    memkit.spill("x")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        ok = np.array_equal(handle.get(), array(MIB))
        session.close()
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert np.array_equal(handle.get(), array(MIB))


def test_a_failed_reading_is_an_error_not_zero(session, monkeypatch):
    from memkit.errors import ReadingError

    def broken():
        raise ReadingError("/proc is gone")

    monkeypatch.setattr(session, "reader", broken)
    with pytest.raises(ReadingError, match="/proc is gone"):
        memkit.status()


def test_status_adds_up(session):
    memkit.track(array(), name="x")
    status = memkit.status()
    assert status.limit == status.used + status.available
    assert status.tiers["ram"] >= SIZE
    assert status.tracked >= SIZE
    assert status.level in ("normal", "warning", "emergency")
    assert status.own_memory > 0


def test_top_counts_shared_memory_once(session):
    base = array()
    session.space.variables.update(base=base, view=base[: SIZE // 16], small=[1])
    found = memkit.top()
    rows = {row.name: row for row in found.rows}
    assert SIZE <= found.total < SIZE + 10_000
    assert rows["view"].size + rows["base"].size < SIZE + 10_000
    assert rows["view"].shared + rows["base"].shared >= SIZE // 2
