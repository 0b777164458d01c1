"""Every way to die, and everything that may go wrong while a rescue is being written or read."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from memkit.config import Settings
from memkit.errors import CorruptedError, MemkitError, RescueError
from memkit.lifecycle.rescue import manifest as manifests
from memkit.lifecycle.rescue import sets
from memkit.lifecycle.rescue.keys import keys
from memkit.lifecycle.store import lock, sweep_leftovers
from memkit.units import MIB
from tests.lifecycle.rescue import rig
from tests.lifecycle.rescue.rig import Heir, Notebook, die, until

Make = Callable[..., Heir]


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("import os; os.abort()", "abort"),
        ("import os; os._exit(7)", "code 7"),
        ("import os; os.killpg(0, 9)", "SIGKILL"),
    ],
)
def test_deaths_are_survived_and_explained(of: Settings, heir: Make, end: str, words: str) -> None:
    alone = "import os, resource\nos.setpgid(0, 0)\nresource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
    die(of, alone + "x = [1, 2, 3]", end)
    next_ = heir()
    assert next_["x"] == [1, 2, 3]
    assert words in next_.adoption.manifest.cause


def test_what_the_dying_cell_did_is_not_in_the_picture_but_what_it_was_is(of: Settings, heir: Make) -> None:
    def live(notebook: Notebook) -> None:
        notebook.run("x = 1")
        notebook.rescuer.says(cell=4, line="boom()", running=True)

    die(of, live, "x = 2")
    next_ = heir()
    assert next_["x"] == 1
    doing = next_.adoption.manifest.doing
    assert (doing.cell, doing.line, doing.running) == (4, "boom()", True)


def test_a_value_that_hangs_costs_only_itself(of: Settings, heir: Make) -> None:
    code = """
import time
class Stuck:
    def __reduce__(self): time.sleep(3600)
a = 1; stuck = Stuck(); z = [2]; pair = {'z': z, 's': [3]}
"""
    die(of, code, patience=1.0)
    next_ = heir()
    assert (next_["a"], next_["z"], next_["pair"]["s"]) == (1, [2], [3])
    assert "nothing happened for 1 s" in next_.lost["stuck"]


def test_a_value_that_crashes_costs_only_itself(of: Settings, heir: Make) -> None:
    code = """
import os
class Crash:
    def __reduce__(self): os.abort()
class Leave:
    def __reduce__(self): os._exit(3)
a = 1; crash = Crash(); leave = Leave(); z = 2
"""
    die(of, code)
    next_ = heir()
    assert (next_["a"], next_["z"]) == (1, 2)
    assert "SIGABRT" in next_.lost["crash"]
    assert "ended the process" in next_.lost["leave"]


def test_a_group_that_hangs_is_tried_one_by_one(of: Settings, heir: Make) -> None:
    code = """
import time
class Stuck:
    def __reduce__(self): time.sleep(3600)
shared = [1]; a = {'s': shared}; b = {'s': shared, 'stuck': Stuck()}
"""
    die(of, code, patience=1.0)
    next_ = heir()
    assert next_["a"] == {"s": [1]}
    assert set(next_.lost) == {"b"}


def test_a_writer_killed_for_want_of_memory_is_replaced_by_the_child_itself(of: Settings, heir: Make) -> None:
    code = """
import os, signal
class Victim:
    first = os.getpid()
    def __reduce__(self):
        if os.getppid() not in (1, parent.get('pid', 0)) and not os.path.exists(flag):
            open(flag, 'w').close()
            os.kill(os.getpid(), signal.SIGKILL)
        return (str, ('saved',))
parent = {}; flag = %r; a = 1; v = Victim(); z = 2
"""
    die(of, code % str(of.store.directory / "flag"))  # type: ignore[operator]
    next_ = heir()
    assert (next_["a"], next_["v"], next_["z"]) == (1, "saved", 2)


def test_what_does_not_fit_is_named_and_the_small_ones_are_saved(tmp_path: Path, heir: Make) -> None:
    of = rig.settings(tmp_path / "store", rescue_max_bytes=2 * MIB)
    die(of, "import numpy as np\nbig = np.random.default_rng(0).random(MB)\nsmall = [1]".replace("MB", "10**6"))
    next_ = heir()
    assert next_["small"] == [1]
    assert "guard.rescue_max_bytes" in next_.lost["big"]


def test_the_rescuer_killed_midway_leaves_what_it_had_saved(of: Settings, heir: Make) -> None:
    code = """
import time
class Slow:
    def __reduce__(self): time.sleep(3600)
a = 1; slow = Slow(); slow.data = [0] * 1000
"""
    die(of, code, wait=False)
    until(lambda: any("a" in f.manifest.saved for f in rig.found(of)))
    child = _processes("memkit-rescue")
    assert len(child) == 2  # the child and its writer
    os.kill(min(child), signal.SIGKILL)
    until(lambda: not _processes("memkit-rescue"), 5)
    next_ = heir()
    assert next_["a"] == 1
    assert next_.adoption.manifest.complete is False
    assert "slow" in next_.adoption.manifest.pending


def _processes(name: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            named = entry.name.isdigit() and (entry / "comm").read_text().strip() == name
            if named and _is_ours(int(entry.name)):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def _is_ours(pid: int) -> bool:
    """Of this test run: the command line is inherited by a fork."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() == Path("/proc/self/cmdline").read_bytes()
    except OSError:
        return False


def test_a_mention_waits_for_what_is_still_being_saved(of: Settings, heir: Make) -> None:
    code = f"""
import time, os
class Late:
    def __reduce__(self):
        while not os.path.exists({str(of.store.directory / "go")!r}): time.sleep(0.01)
        return (str, ('late',))
a = 1; late = Late(); late.data = [0] * 1000
"""
    die(of, code, wait=False)
    until(lambda: any("a" in f.manifest.saved for f in rig.found(of)))
    next_ = heir()
    assert next_.adoption.writing
    assert next_["a"] == 1
    next_.adoption.wait = 0.2
    with pytest.raises(MemkitError, match="still being saved"):
        next_.session.restore("late")
    (of.store.directory / "go").touch()  # type: ignore[operator]
    next_.adoption.wait = 20
    assert next_["late"] == "late"
    until(lambda: not next_.adoption.refresh() and not next_.adoption.writing)


def test_nothing_of_a_kernel_that_ended_on_purpose_remains(of: Settings) -> None:
    notebook = Notebook(of)
    notebook.run("x = 1")
    assert notebook.rescuer.take()
    pid = notebook.rescuer.status().child
    assert pid is not None
    notebook.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert rig.found(of) == []


def test_one_child_at_most_and_none_is_left_unreaped(of: Settings) -> None:
    notebook = Notebook(of)
    pids = []
    for _ in range(5):
        assert notebook.rescuer.take(force=True)
        pids.append(notebook.rescuer.status().child)
    until(lambda: _children() == {pids[-1]} or bool(notebook.rescuer._keeping.reap()))
    notebook.close()
    assert _children() == set()


def _children() -> set[int]:
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {int(pid) for pid in listed}


def test_the_child_holds_no_descriptor_of_the_kernel(of: Settings, tmp_path: Path) -> None:
    """An inherited socket would keep the port; the kernel's output pipe would never end."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server, open(tmp_path / "f", "w"):
        notebook = Notebook(of)
        notebook.rescuer.take()
        pid = notebook.rescuer.status().child
        until(lambda: Path(f"/proc/{pid}/comm").read_text().strip() == "memkit-rescue")
        port = server.getsockname()[1]
        held = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
        assert {kind.partition(":")[0] for kind in held} <= {"/dev/null", "socket", "anon_inode"}
        assert sum(kind.startswith("socket") for kind in held) == 1
        server.close()
        socket.create_server(("127.0.0.1", port)).close()
        notebook.close()


def test_signals_for_the_kernel_do_not_end_the_child(of: Settings) -> None:
    notebook = Notebook(of)
    notebook.rescuer.take()
    pid = notebook.rescuer.status().child
    assert pid is not None
    until(lambda: Path(f"/proc/{pid}/comm").read_text().strip() == "memkit-rescue")
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        os.kill(pid, number)
    time.sleep(0.05)
    assert notebook.rescuer.status().child == pid
    notebook.close()


def test_a_child_of_somebody_else_does_not_keep_the_kernel_alive_to_the_rescuer(of: Settings, heir: Make) -> None:
    """A forked worker that outlives the kernel holds what it inherited; the death is heard all the same."""
    die(of, "import os, time\nx = 5", "os.fork() or (time.sleep(30), os._exit(0))")
    assert heir()["x"] == 5


def test_without_a_pidfd_the_death_is_heard_too(of: Settings, heir: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    die(of, "x = 5")
    assert heir()["x"] == 5


def test_a_fork_that_fails_keeps_the_old_picture_and_says_so(of: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook(of)
    assert notebook.rescuer.take()
    pid = notebook.rescuer.status().child

    def no_memory() -> int:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(os, "fork", no_memory)
    assert not notebook.rescuer.take(force=True)
    status = notebook.rescuer.status()
    assert status.child == pid
    assert "Cannot allocate memory" in str(status)
    monkeypatch.undo()
    notebook.close()


def test_a_child_killed_from_outside_is_noticed_and_replaced(of: Settings) -> None:
    notebook = Notebook(of)
    notebook.rescuer.take()
    pid = notebook.rescuer.status().child
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: notebook.rescuer.status().child is None)
    assert notebook.rescuer.take(force=True)
    assert notebook.rescuer.status().child not in (None, pid)
    notebook.close()


def test_saving_early_ends_the_child_and_the_set_counts_until_the_next_picture(of: Settings, heir: Make) -> None:
    def live(notebook: Notebook) -> None:
        notebook.run("x = [1]")
        notebook.rescuer.take()
        notebook.rescuer.save_now(20)
        assert notebook.rescuer.status().child is None
        assert notebook.rescuer.status().provisional
        os.kill(os.getpid(), signal.SIGKILL)

    assert die(of, live) == signal.SIGKILL
    assert heir()["x"] == [1]


def test_an_early_set_is_superseded_by_the_next_picture_and_by_an_end_on_purpose(of: Settings) -> None:
    notebook = Notebook(of)
    notebook.run("x = [1]")
    notebook.rescuer.take()
    folder = notebook.rescuer.save_now(20)
    assert folder.exists()
    assert sets.sweep(of.store.directory, 0.0, 0, time.time() + 99) == 0  # locked by a living kernel
    assert notebook.rescuer.take(force=True)
    assert not folder.exists()
    folder = notebook.rescuer.save_now(20)
    notebook.close()
    assert not folder.exists()


def test_asking_without_a_child_says_so(of: Settings) -> None:
    notebook = Notebook(of)
    with pytest.raises(RescueError, match="no picture"):
        notebook.rescuer.save_now(1)
    notebook.close()


# -- what was demoted, tracked, owned ----------------------------------------------------------------------------------


def test_demoted_values_are_taken_over_as_they_are(of: Settings, heir: Make) -> None:
    def live(notebook: Notebook) -> None:
        notebook.run(
            "import numpy as np\nd = np.arange(400_000.)\nc = [0] * 100_000\nf = {'n': len}\nclass K: pass\nk = [K()]"
        )
        for name in "dcfk":
            notebook.session.register(name, type="audio_cache", ttl=99.0, priority=7, tags=("mine",))
        notebook.session.spill("d")
        notebook.session.spill("k")
        notebook.session.compress("c")

    die(of, live)
    next_ = heir()
    info = next_.session.handle("d").info
    assert (info.tier, info.type, info.ttl, info.priority, info.tags) == ("disk", "audio_cache", 99.0, 7, {"mine"})
    assert np.array_equal(next_["d"], np.arange(400_000.0))
    assert next_["c"] == [0] * 100_000
    assert type(next_["k"][0]) is next_["K"]
    next_.adoption.settle()
    assert "d" in next_.session.tracker
    assert next_["f"] == {"n": len}


def test_a_value_restored_by_the_cell_that_dies_is_not_lost(of: Settings, heir: Make) -> None:
    """The picture knows it on disk; the file must outlive its restoration until there is another picture."""

    def live(notebook: Notebook) -> None:
        notebook.run("d = list(range(50_000))")
        notebook.session.register("d")
        notebook.session.spill("d")
        assert notebook.rescuer.take()
        notebook.session.restore("d")
        os.kill(os.getpid(), signal.SIGKILL)

    die(of, live)
    assert heir()["d"] == list(range(50_000))


def test_owned_values_and_recipes_come_back(of: Settings, heir: Make) -> None:
    def live(notebook: Notebook) -> None:
        notebook.run("calls = []\ndef make():\n    return [9]\nr = make()")
        notebook.session.track([1, 2], name="own", hold="owned")
        notebook.session.register("r", reload=notebook.names["make"])
        notebook.session.unload("r")

    die(of, live)
    next_ = heir()
    assert next_.session.handle("own").get() == [1, 2]
    assert next_["r"] == [9]
    next_.adoption.settle()
    next_.adoption.forget_spent()
    next_.session.unload("r")
    assert next_["r"] == [9]


def test_what_was_not_tracked_is_not_tracked_once_it_is_back(of: Settings, heir: Make) -> None:
    die(of, "a = [1]; b = [2]")
    next_ = heir()
    assert next_["a"] == [1]
    next_.names["b"] = "mine"
    next_.session.variables.reconcile()
    next_.adoption.settle()
    assert len(next_.session.tracker) == 0
    assert next_.names["b"] == "mine"
    folder = next_.adoption.folder
    assert folder.exists()  # until another picture has the values
    assert next_.rescuer.take()
    assert not folder.exists()
    assert next_.rescuer.adoptions == []


def test_names_that_are_bound_already_are_left_alone(of: Settings) -> None:
    die(of, "a = 'rescued'")
    next_ = rig.Heir.__new__(rig.Heir)
    Notebook.__init__(next_, of)
    next_.names["a"] = "mine"
    session = next_.session
    home = rig.Home(session.tracker, session.demotion, session.registration, session.space, lambda: session.store)
    next_.rescuer.adoptions += rig.adopt(rig.found(of), lambda one: rig.Adoption(one.folder, home, one.manifest))
    assert next_.names["a"] == "mine"
    assert next_.adoption.kept_yours == ["a"]
    assert next_.adoption.load("a") == "rescued"
    next_.close()


# -- more than one death -----------------------------------------------------------------------------------------------


def _adopting(of: Settings, then: Callable[[Heir], object]) -> None:
    """A kernel that takes over what is there, does something and dies without a picture of its own."""

    def live(_: Notebook) -> None:
        heir = Heir(of)
        then(heir)
        os.kill(os.getpid(), signal.SIGKILL)

    assert die(of, live, wait=False) == signal.SIGKILL


def test_a_second_death_before_any_picture_leaves_the_first_rescue_whole(of: Settings, heir: Make) -> None:
    die(of, "a = [1]; b = [2]")
    _adopting(of, lambda one: (one["a"], one.adoption.settle()))
    next_ = heir()
    assert (next_["a"], next_["b"]) == ([1], [2])


def test_a_second_death_rescues_what_had_not_come_back_yet_too(of: Settings, heir: Make) -> None:
    die(of, "import numpy as np\na = [1]; b = np.arange(300_000); f = lambda: b")

    def live(one: Heir) -> None:
        assert one["a"] == [1]
        one.names["a"].append("more")
        one.names["new"] = 3
        assert one.rescuer.take()

    _adopting(of, live)
    until(lambda: len(rig.found(of)) == 1 and not rig.found(of)[0].writing)
    next_ = heir()
    assert next_["a"] == [1, "more"]
    assert next_["new"] == 3
    assert next_["b"].sum() == np.arange(300_000).sum()
    assert next_["np"] is np
    assert next_["f"]() is next_["b"]


# -- what is on disk ---------------------------------------------------------------------------------------------------


def _only(of: Settings) -> Path:
    return rig.found(of)[0].folder


def test_files_are_private_and_hold_no_source(of: Settings) -> None:
    die(of, "x = 'quite secret'")
    folder = _only(of)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert "secret" not in (folder / manifests.NAME).read_text()


def test_a_changed_value_is_refused_and_never_unpickled(of: Settings, heir: Make) -> None:
    die(of, "x = [1]; y = [2]")
    folder = _only(of)
    entry = next(e for e in manifests.read(folder).entries if e.names == ("x",))
    path = folder / entry.file
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    next_ = heir()
    with pytest.raises(CorruptedError):
        next_.session.restore("x")
    assert next_["y"] == [2]


@pytest.mark.parametrize("what", ["damage", "version", "python", "mode", "owner"])
def test_a_manifest_that_is_not_to_be_trusted_is_refused(of: Settings, what: str) -> None:
    die(of, "x = 1")
    path = _only(of) / manifests.NAME
    content = json.loads(path.read_bytes().partition(b"\n")[2])
    if what == "damage":
        path.write_bytes(path.read_bytes() + b" ")
    elif what == "mode":
        path.chmod(0o644)
    elif what == "owner":
        if os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        os.chown(path, 12345, -1)
    else:
        content.update({"version": 99} if what == "version" else {"python": [2, 7]})
        data = json.dumps(content).encode()
        manifests.write_private(path, manifests.checksum(data).encode() + b"\n" + data)
    with pytest.raises(RescueError):
        sets.look(path.parent)


def test_a_users_folder_that_is_not_private_is_refused(of: Settings) -> None:
    die(of, "x = 1")
    _only(of).parent.chmod(0o755)
    with pytest.raises(MemkitError, match="not private"):
        sets.matching(of.store.directory, rig.KEYS)


def test_sweeps_leave_rescues_alone_until_they_are_too_old_too_big_or_worth_nothing(of: Settings) -> None:
    die(of, "x = 1")
    folder = _only(of)
    sweep_leftovers(of.store.directory)
    now = time.time()
    assert sets.sweep(of.store.directory, 60.0, None, now) == 0
    assert folder.exists()
    fd = lock.take_over(folder)
    assert sets.sweep(of.store.directory, 60.0, None, now + 100) == 0  # in use
    os.close(fd)  # type: ignore[arg-type]
    assert sets.sweep(of.store.directory, 60.0, 1, now) == 1
    assert not folder.exists()


def test_a_rescue_cut_short_before_anything_was_saved_is_removed(of: Settings) -> None:
    folder, fd = sets.create(of.store.directory, rig.KEYS)  # type: ignore[arg-type]
    manifests.write(folder, manifests.Manifest(1, 0.0, time.time(), pending=("x",)))
    assert sets.sweep(of.store.directory, 60.0, None, time.time()) == 0
    os.close(fd)
    assert sets.sweep(of.store.directory, 60.0, None, time.time()) == 1


def test_only_the_kernels_own_rescue_is_found() -> None:
    mine = keys("/run/kernel-1.json", {"JPY_SESSION_NAME": "a.ipynb"})
    assert mine[0] == keys("/elsewhere/kernel-1.json", {})[0]
    assert mine[1] == keys("/run/kernel-2.json", {"JPY_SESSION_NAME": "a.ipynb"})[1]
    assert keys("", {"JPY_SESSION_NAME": "a.ipynb"}) == ()
    other = keys("/run/kernel-3.json", {})
    assert not set(mine) & set(other)


def test_dropping_removes_what_waits(of: Settings, heir: Make) -> None:
    die(of, "x = 1; y = 2")
    next_ = heir()
    next_.adoption.drop()
    assert "x" not in next_.session.tracker
    assert rig.found(of) == []
    next_.rescuer.adoptions.clear()


def test_an_end_on_purpose_leaves_what_has_not_come_back(of: Settings, heir: Make) -> None:
    die(of, "x = [1]; y = [2]")
    heir().close()
    assert heir()["x"] == [1]


def test_no_orphans(of: Settings) -> None:
    """After all of the above no process of a rescue is left."""
    until(lambda: not _processes("memkit-rescue"), 5)
