"""Every way of limiting memory keeps the same promises; what is special to each comes after."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from memkit.errors import LimitError
from memkit.notebook.limited import rlimit
from memkit.notebook.limited.cgroup1 import CgroupV1
from memkit.notebook.limited.cgroup2 import CgroupV2
from memkit.notebook.limited.choice import Refused, choose, limits
from memkit.notebook.limited.counters import Counters
from memkit.notebook.limited.groupbox import own_groups
from memkit.notebook.limited.limit import Limit
from memkit.notebook.limited.maker import Maker
from memkit.notebook.limited.rlimit import Rlimit
from memkit.notebook.limited.systemd import Systemd
from memkit.notebook.limited.tree import Tree
from memkit.units import MIB

from .faketree import FakeTree

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits memory")
SIZE = 256 * MIB
_REAL_V1 = CgroupV1().available() if sys.platform == "linux" else "not Linux"
real_v1 = pytest.mark.skipif(_REAL_V1 is not None, reason=f"no group can be made: {_REAL_V1}")


@dataclass
class Case:
    """A limit, and what there is in the places where it might leave something."""

    limit: Limit
    left: Callable[[], Any] = field(default=lambda: None)


def boxes(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_dir() and path.name.startswith("memkit-"))


def fake_v1(tmp_path: Path) -> Case:
    tree = FakeTree(tmp_path, 1)
    tree.lives_in("user")
    return Case(CgroupV1(tmp_path, tree), lambda: boxes(tree.top))


def fake_v2(tmp_path: Path) -> Case:
    tree = FakeTree(tmp_path, 2)
    tree.lives_in("user.slice", "app.scope")
    return Case(CgroupV2(tmp_path, tree), lambda: boxes(tree.top))


def fake_v2_below(tmp_path: Path) -> Case:
    tree = FakeTree(tmp_path, 2)
    own = tree.lives_in()
    tree.populate(own, 7001)
    return Case(CgroupV2(tmp_path, tree), lambda: (boxes(tree.top), (own / "cgroup.procs").read_text()))


def fake_systemd(tmp_path: Path) -> Case:
    manager = FakeManager()
    script = tmp_path / "systemd-run"
    script.write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec "$@"\n')
    script.chmod(0o755)
    return Case(Systemd(tmp_path, manager, lambda name: str(script)), lambda: manager.units)


def real_rlimit(tmp_path: Path) -> Case:
    return Case(Rlimit())


def really_v1(tmp_path: Path) -> Case:
    return Case(CgroupV1(), lambda: boxes(Path(own_groups(Path("/"), 1)[0])))


class FakeManager:
    """systemd's part in it: units that are asked for, listed and ended."""

    def __init__(self) -> None:
        self.units: list[str] = []
        self.asked: list[list[str]] = []
        self.limit_held = True
        self.result = "success"

    def __call__(self, command: Any) -> subprocess.CompletedProcess[str]:
        self.asked.append(list(command))
        if command[0] == "systemd-run":
            limit = next(part for part in command if part.startswith("MemoryMax=")).partition("=")[2]
            return subprocess.CompletedProcess(command, 0, limit if self.limit_held else "max", "")
        if "list-units" in command:
            lines = "".join(f"{unit} loaded active running\n" for unit in self.units)
            return subprocess.CompletedProcess(command, 0, lines, "")
        if "reset-failed" in command:
            self.units = [unit for unit in self.units if unit != command[-1]]
        return subprocess.CompletedProcess(command, 0, self.result if "show" in command else "", "")


@pytest.fixture(
    params=[
        fake_v1, fake_v2, fake_v2_below, fake_systemd, real_rlimit,
        pytest.param(really_v1, marks=real_v1),
    ]
)  # fmt: skip
def case(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    made: Case = request.param(tmp_path)
    return made


def run(prefix: tuple[str, ...], *command: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*prefix, *command], capture_output=True, text=True, timeout=60, check=False, **more)


# -- the contract ------------------------------------------------------------------------------------------------------


def test_asking_whether_it_works_leaves_nothing_behind(case: Case) -> None:
    before = case.left()
    assert case.limit.available() is None
    assert case.left() == before


def test_the_prefix_becomes_the_command_with_every_argument_as_it_was(case: Case) -> None:
    program = "import os, sys; print(os.getpid(), os.getppid(), sys.argv[1:])"
    arguments = ["a b", "'", '"$HOME"', ""]
    with case.limit.box(SIZE) as box:
        process = subprocess.Popen(
            [*box.prefix, sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True
        )
        said, _ = process.communicate(timeout=60)
    assert said.strip() == f"{process.pid} {os.getpid()} {arguments}"


def test_a_command_that_does_not_exist_says_so(case: Case) -> None:
    with case.limit.box(SIZE) as box:
        ended = run(box.prefix, "no-such-command-anywhere")
    assert ended.returncode not in (0, -9)
    assert "no-such-command-anywhere" in ended.stderr


def test_figures_can_be_asked_for_before_during_and_after_the_process(case: Case) -> None:
    with case.limit.box(SIZE) as box:
        assert (box.kills() or 0) == 0
        process = subprocess.Popen([*box.prefix, "sleep", "60"], start_new_session=True)
        box.started(process.pid)
        box.look()
        assert (box.held() or 0) < SIZE
        process.kill()
        process.wait()
        box.look()
        assert (box.peak() or 0) < SIZE
        assert (box.kills() or 0) == 0
        assert box.measure


def test_nothing_stays_when_the_block_ends_by_an_exception(case: Case) -> None:
    before = case.left()
    with pytest.raises(KeyboardInterrupt), case.limit.box(SIZE):
        raise KeyboardInterrupt
    assert case.left() == before


def test_two_boxes_at_once_do_not_disturb_each_other(case: Case) -> None:
    before = case.left()
    with case.limit.box(SIZE) as one:
        with case.limit.box(SIZE) as other:
            assert run(other.prefix, "true").returncode == 0
        assert run(one.prefix, "true").returncode == 0
    assert case.left() == before


# -- version 1 ---------------------------------------------------------------------------------------------------------


def made_in(folder: Path) -> Path:
    (box,) = (path for path in folder.iterdir() if path.name.startswith("memkit-run-"))
    return box


def test_swap_counts_with_memory_and_a_full_group_kills_rather_than_waits(tmp_path: Path) -> None:
    tree = FakeTree(tmp_path, 1)
    own = tree.lives_in("user")
    with CgroupV1(tmp_path, tree).box(SIZE) as box:
        folder = made_in(own)
        limits_set = [(folder / f"memory.{name}limit_in_bytes").read_text() for name in ("", "memsw.")]
        assert limits_set == [str(SIZE)] * 2
        assert (folder / "memory.oom_control").read_text() == "0"
        assert box.notes == ()


def test_where_swap_cannot_be_forbidden_it_is_said(tmp_path: Path) -> None:
    class WithoutSwapAccounting(FakeTree):
        def make(self, folder: str) -> None:
            super().make(folder)
            os.unlink(f"{folder}/memory.memsw.limit_in_bytes")

    tree = WithoutSwapAccounting(tmp_path, 1)
    tree.lives_in("user")
    swaps = tmp_path / "proc/swaps"
    swaps.write_text("Filename Type Size Used Priority\n")
    with CgroupV1(tmp_path, tree).box(SIZE) as box:
        assert box.notes == ()
    swaps.write_text("Filename Type Size Used Priority\n/swap file 1 0 -2\n")
    with CgroupV1(tmp_path, tree).box(SIZE) as box:
        assert "swap" in box.notes[0]


@pytest.mark.parametrize("version", [1, 2])
def test_where_no_group_may_be_made_the_reason_is_told(version: int, tmp_path: Path) -> None:
    tree = FakeTree(tmp_path, version)
    tree.lives_in("user", "mine")
    tree.forbidden.append(tree.top)
    limit = CgroupV1(tmp_path, tree) if version == 1 else CgroupV2(tmp_path, tree)
    assert "Permission denied" in str(limit.available())
    assert boxes(tree.top) == []


def test_each_version_knows_that_it_is_not_there(tmp_path: Path) -> None:
    tree = FakeTree(tmp_path, 1)
    tree.lives_in("user")
    assert "no control groups of version 2" in str(CgroupV2(tmp_path, tree).available())
    assert "no memory controller of version 1" in str(CgroupV1(tmp_path / "nowhere", tree).available())


# -- version 2 ---------------------------------------------------------------------------------------------------------


def test_beside_our_own_group_nobody_has_to_move(tmp_path: Path) -> None:
    tree = FakeTree(tmp_path, 2)
    own = tree.lives_in("user.slice", "app.scope")
    tree.populate(own, 7001, 7002)
    with CgroupV2(tmp_path, tree).box(SIZE):
        folder = made_in(own.parent)
        assert (folder / "memory.max").read_text() == str(SIZE)
        assert (folder / "memory.swap.max").read_text() == "0"
        assert (own / "cgroup.procs").read_text().split() == ["7001", "7002"]
    assert boxes(tree.top) == []


def limited(own: Path, tree: FakeTree) -> None:
    (own / "memory.max").write_text("1000000000")


def not_ours(own: Path, tree: FakeTree) -> None:
    tree.forbidden = [own.parent]
    tree._permit = lambda folder: FakeTree._permit(tree, folder) if own not in [folder, *folder.parents] else None  # type: ignore[method-assign]


@pytest.mark.parametrize("obstacle", [limited, not_ours])
def test_where_a_group_beside_would_escape_a_limit_or_is_not_ours_it_is_below(obstacle: Any, tmp_path: Path) -> None:
    """A group with processes limits nobody below it, so these are parked, and are back at the end."""
    tree = FakeTree(tmp_path, 2)
    own = tree.lives_in("user.slice", "app.scope")
    tree.populate(own, 7001, 7002)
    obstacle(own, tree)
    with CgroupV2(tmp_path, tree).box(SIZE):
        assert (made_in(own) / "memory.max").read_text() == str(SIZE)
        assert (own / "memkit-parked" / "cgroup.procs").read_text().split() == ["7001", "7002"]
    assert boxes(tree.top) == []
    assert (own / "cgroup.procs").read_text().split() == ["7001", "7002"]
    assert (own / "cgroup.subtree_control").read_text().split() == []


def test_processes_that_cannot_be_moved_are_left_where_they_were_and_told(tmp_path: Path) -> None:
    tree = FakeTree(tmp_path, 2)
    own = tree.lives_in("app.scope")
    tree.populate(own, 7001, 1)
    limited(own, tree)
    tree.immovable.add(1)
    reason = str(CgroupV2(tmp_path, tree).available())
    assert "has a limit of its own" in reason
    assert "cannot be moved" in reason
    assert sorted((own / "cgroup.procs").read_text().split()) == ["1", "7001"]
    assert boxes(tree.top) == []


def test_who_leaves_last_puts_the_parked_back(tmp_path: Path) -> None:
    """Taking the controller back while another box is open would lift that box's limit."""
    tree = FakeTree(tmp_path, 2)
    own = tree.lives_in("app.scope")
    tree.populate(own, 7001)
    limited(own, tree)
    first, second = CgroupV2(tmp_path, tree).box(SIZE), CgroupV2(tmp_path, tree).box(SIZE)
    with contextlib.ExitStack() as later:
        with first:
            later.enter_context(second)
        assert (own / "cgroup.subtree_control").read_text().split() == ["memory"]
        assert (own / "memkit-parked" / "cgroup.procs").read_text().split() == ["7001"]
    assert (own / "cgroup.procs").read_text().split() == ["7001"]
    assert boxes(tree.top) == []


def test_a_group_that_was_not_given_the_controller_says_so(tmp_path: Path) -> None:
    tree = FakeTree(tmp_path, 2)
    own = tree.lives_in("app.scope")
    (own / "cgroup.controllers").write_text("cpu pids\n")
    assert "no memory controller of version 2" in str(CgroupV2(tmp_path, tree).available())


def test_counters_keep_what_they_have_seen_when_the_group_is_gone(tmp_path: Path) -> None:
    tree = FakeTree(tmp_path, 2)
    folder = tree.lives_in("box")
    from memkit.memory.cgroup import Group

    counters = Counters(Group(2, str(folder)))
    (folder / "memory.peak").unlink()  # before Linux 5.19
    (folder / "memory.current").write_text("5000")
    (folder / "memory.max").write_text("9000")
    (folder / "memory.stat").write_text("file 1000\nshmem 200\n")
    (folder / "memory.events").write_text("oom_kill 3\noom_group_kill 9\n")
    assert counters.held() == 5000 - (1000 - 200)
    counters.look()
    (folder / "memory.current").write_text("100")
    counters.look()
    tree.remove(str(folder))
    counters.look()
    assert (counters.highest, counters.killed, counters.held()) == (5000, 3, None)


# -- leftovers ---------------------------------------------------------------------------------------------------------


def dead_name() -> str:
    this = Maker.this()
    return Maker(this.pid, this.started - 1, this.namespace).new_name()  # the id is in use again


@pytest.mark.parametrize("version", [1, 2])
def test_a_box_whose_maker_was_killed_is_removed_with_who_is_in_it(version: int, tmp_path: Path) -> None:
    tree = FakeTree(tmp_path, version)
    own = tree.lives_in("slice", "user")
    parent = own if version == 1 else own.parent
    names = [
        dead_name(),
        Maker.this().new_name(),
        Maker(2**30, 1, 1).new_name(),
        "memkit-run-notes",
    ]
    for name in names:
        (parent / "cgroup.subtree_control").write_text("memory\n")
        tree.make(str(parent / name))
    tree.populate(parent / names[0], 7001, 0)
    with (CgroupV1 if version == 1 else CgroupV2)(tmp_path, tree).box(SIZE):
        pass
    assert tree.killed == [7001], "0 is a process of another namespace, and would be all of ours"
    assert boxes(parent) == sorted(names[1:]), "one in use, one of another namespace, one that is not ours"


def test_our_own_process_is_never_killed_with_a_group(tmp_path: Path) -> None:
    tree = FakeTree(tmp_path, 1)
    own = tree.lives_in("user")
    ticks = iter(range(10**6))
    tree.pause = lambda: None if next(ticks) < 3 else tree.populate(own)  # type: ignore[method-assign]
    tree.populate(own, os.getpid())
    tree.destroy(str(own))
    assert tree.killed == []


@real_v1
@pytest.mark.parametrize("how", ["killed", "ended"])
def test_what_a_run_leaves_in_the_real_tree_goes_with_it_or_with_the_next(how: str) -> None:
    parent = own_groups(Path("/"), 1)[0]
    program = (
        "import subprocess, sys\n"
        "from memkit.notebook.limited.cgroup1 import CgroupV1\n"
        "with CgroupV1().box(64 * 2**20) as box:\n"
        "    child = subprocess.Popen([*box.prefix, 'sleep', '600'], stdout=subprocess.DEVNULL)\n"
        "    print(child.pid, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    maker = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert maker.stdout is not None
    sleeper = psutil.Process(int(maker.stdout.readline()))
    until(lambda: any(sleeper.pid in Tree().processes(box) for box in Tree().boxes(parent)))
    if how == "killed":
        maker.kill()
        maker.wait()
        assert sleeper.is_running()
        with CgroupV1().box(SIZE):
            pass
    maker.communicate()
    until(lambda: not sleeper.is_running() or sleeper.status() == psutil.STATUS_ZOMBIE)
    assert [box for box in Tree().boxes(parent) if f"-{maker.pid}-" in box] == []


def until(condition: Callable[[], bool]) -> None:
    """Other processes have no clock to inject."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# -- really limited ----------------------------------------------------------------------------------------------------

_TAKE = "import mmap, sys; m = mmap.mmap(-1, {size}, mmap.MAP_PRIVATE); m[:] = bytes(1) * len(m)"


@real_v1
def test_the_kernel_ends_who_needs_more_than_the_group_has_and_the_box_knows() -> None:
    with CgroupV1().box(48 * MIB) as box:
        assert run(box.prefix, sys.executable, "-c", _TAKE.format(size=8 * MIB)).returncode == 0
        assert (box.kills(), (box.peak() or 0) < 48 * MIB) == (0, True)
        assert run(box.prefix, sys.executable, "-c", _TAKE.format(size=100 * MIB)).returncode == -signal.SIGKILL
        assert box.kills() == 1
        assert box.peak() == pytest.approx(48 * MIB, rel=0.01)


def test_rlimit_refuses_private_memory_and_no_file_mapping(tmp_path: Path) -> None:
    """With RLIMIT_AS the mapping would be refused."""
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(300 * MIB)
    mapping = f"import mmap; file = open({str(big)!r}); mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)"
    with Rlimit().box(128 * MIB) as box:
        assert run(box.prefix, sys.executable, "-c", mapping).returncode == 0
        refused = run(box.prefix, sys.executable, "-c", _TAKE.format(size=200 * MIB))
        assert "Cannot allocate memory" in refused.stderr
        hard = "import resource as r; print(*r.getrlimit(r.RLIMIT_DATA))"
        nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hard!r}])"
        assert run(box.prefix, sys.executable, "-c", nested).stdout.split() == [str(128 * MIB)] * 2
        assert box.environ == {"MEM_LIMIT": str(128 * MIB)}


def test_rlimit_ends_what_is_left_of_the_kernels_session() -> None:
    with Rlimit().box(SIZE) as box:
        process = subprocess.Popen(
            [*box.prefix, "sh", "-c", "sleep 600 & echo $!"], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert process.stdout is not None
        left = psutil.Process(int(process.stdout.readline()))
        box.started(process.pid)
        process.wait()
        process.stdout.close()
        assert left.is_running()
    until(lambda: not left.is_running() or left.status() == psutil.STATUS_ZOMBIE)


def test_rlimit_is_only_offered_where_the_system_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "only Linux" in str(Rlimit(platform="darwin").available())
    monkeypatch.setattr(rlimit, "_too_much", lambda size: "limited already")
    with pytest.raises(LimitError, match="limited already"), Rlimit().box(SIZE):
        pass


# -- systemd -----------------------------------------------------------------------------------------------------------


def test_a_scope_is_limited_in_memory_and_has_no_swap(tmp_path: Path) -> None:
    with Systemd(tmp_path, FakeManager(), lambda name: name).box(SIZE) as box:
        assert box.prefix[:4] == ("systemd-run", "--user", "--scope", "--quiet")
        assert box.prefix[-5:] == ("-p", f"MemoryMax={SIZE}", "-p", "MemorySwapMax=0", "--")


def test_a_systemd_that_sets_no_limit_is_of_no_use(tmp_path: Path) -> None:
    manager = FakeManager()
    manager.limit_held = False
    assert "no memory controller" in str(Systemd(tmp_path, manager, lambda name: name).available())
    assert "no systemd-run" in str(Systemd(tmp_path, manager, lambda name: None).available())
    failing = Systemd(tmp_path, lambda command: subprocess.CompletedProcess(command, 1, "", "a\nno bus\n"), str)
    assert failing.available() == "no bus"


def test_systemd_remembers_a_kill_that_came_after_the_last_look(tmp_path: Path) -> None:
    manager = FakeManager()
    with Systemd(tmp_path, manager, lambda name: name).box(SIZE) as box:
        assert box.kills() == 0
        manager.result = "oom-kill\n"
        assert box.kills() == 1


def test_figures_of_a_scope_are_those_of_its_group_once_the_process_is_in_it(tmp_path: Path) -> None:
    tree = FakeTree(tmp_path, 2)
    tree.lives_in("elsewhere")
    with Systemd(tmp_path, FakeManager(), lambda name: name).box(SIZE) as box:
        box.started("self")  # type: ignore[arg-type]  # the one process this tree has
        assert box.peak() is None
        unit = next(part for part in box.prefix if part.startswith("--unit=")).partition("=")[2]
        tree.lives_in("app.slice", unit)
        assert box.peak() == 8192


def test_scopes_of_makers_that_were_killed_are_ended(tmp_path: Path) -> None:
    manager = FakeManager()
    mine = f"{Maker.this().new_name()}.scope"
    manager.units = [f"{dead_name()}.scope", mine]
    with Systemd(tmp_path, manager, lambda name: name).box(SIZE):
        pass
    assert manager.units == [mine]


# -- choosing ----------------------------------------------------------------------------------------------------------


class Way:
    def __init__(self, name: str, reason: str | None = None) -> None:
        self.name, self.reason = name, reason

    def available(self) -> str | None:
        return self.reason

    def box(self, size: int) -> Any:
        raise AssertionError


def test_the_first_that_works_is_taken_and_those_before_it_are_told_with_their_reasons() -> None:
    found = choose([Way("a", "no a"), Way("b"), Way("c", "never asked")])
    assert found.limit.name == "b"
    assert found.refused == (Refused("a", "no a"),)


def test_where_none_works_every_reason_is_told() -> None:
    with pytest.raises(LimitError, match=r"memory cannot be limited here - a: no a; b: no b"):
        choose([Way("a", "no a"), Way("b", "no b")])


def test_every_word_of_the_command_line_stands_for_a_way() -> None:
    from memkit.cli import METHODS

    assert [limit.name for limit in limits()] == ["cgroup v2", "cgroup v1", "systemd-run", "rlimit"]
    assert {limit.name for word in METHODS for limit in limits(word)} == {limit.name for limit in limits()}


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    if _REAL_V1 is None:
        assert not [box for box in Tree().boxes(own_groups(Path("/"), 1)[0]) if f"-{os.getpid()}-" in box]
