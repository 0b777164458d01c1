"""Limits of control groups as they look on laptops, in containers and in pods."""

from __future__ import annotations

from pathlib import Path

import pytest

from memkit.errors import ReadingError
from memkit.memory.accelerators import Accelerators
from memkit.memory.sample import Reader, Sample
from memkit.units import GIB, MIB
from tests.memory import trees
from tests.memory.trees import group_v1, group_v2, join, mount

V1, V2 = "/sys/fs/cgroup/memory", "/sys/fs/cgroup"


def read(root: Path) -> Sample:
    return Reader(root, environ={}, accelerators=Accelerators(modules={}))()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return trees.machine(tmp_path)


def test_v2_page_cache_is_free_and_shared_memory_is_not(root: Path) -> None:
    join(root, "0::/user/kernel")
    mount(root, ("v2", "/", V2))
    group_v2(root, f"{V2}/user/kernel", limit=2 * GIB, used=1800 * MIB, file=1000 * MIB, shmem=200 * MIB)
    sample = read(root)
    assert (sample.limit, sample.used, sample.binding) == (2 * GIB, 1000 * MIB, "cgroup")


def test_v2_an_ancestor_that_leaves_less_room_binds(root: Path) -> None:
    join(root, "0::/pod/container")
    mount(root, ("v2", "/", V2))
    group_v2(root, f"{V2}/pod/container", limit="max", used=100 * MIB)
    group_v2(root, f"{V2}/pod", limit=GIB, used=900 * MIB)
    sample = read(root)
    assert (sample.limit, sample.available, sample.binding) == (GIB, 124 * MIB, "cgroup")


def test_v2_the_lowest_limit_and_the_least_room_may_come_from_different_groups(root: Path) -> None:
    join(root, "0::/pod/container")
    mount(root, ("v2", "/", V2))
    group_v2(root, f"{V2}/pod/container", limit=GIB, used=100 * MIB)
    group_v2(root, f"{V2}/pod", limit=2 * GIB, used=2 * GIB - 50 * MIB)
    sample = read(root)
    assert (sample.limit, sample.available) == (GIB, 50 * MIB)


def test_v2_memory_high_is_honoured_as_a_limit(root: Path) -> None:
    join(root, "0::/a")
    mount(root, ("v2", "/", V2))
    group_v2(root, f"{V2}/a", limit=2 * GIB, high=GIB, used=512 * MIB)
    assert (read(root).limit, read(root).share) == (GIB, 0.5)


def test_v2_without_limits_the_machine_binds(root: Path) -> None:
    join(root, "0::/a/b")
    mount(root, ("v2", "/", V2))
    group_v2(root, f"{V2}/a/b", limit="max", used=100 * MIB)
    (root / f"{V2}/a/b/memory.stat".lstrip("/")).unlink()  # not even looked at
    assert read(root).binding == "machine"


def test_v1_the_huge_number_means_unlimited(root: Path) -> None:
    join(root, "4:memory:/a", "3:cpu:/a", "0::/")
    mount(root, ("v1", "/", V1))
    group_v1(root, f"{V1}/a", used=7 * GIB)
    group_v1(root, V1, used=7 * GIB)
    assert (read(root).binding, read(root).limit) == ("machine", 8 * GIB)


def test_v1_counts_the_whole_subtree(root: Path) -> None:
    """usage_in_bytes includes child groups, so the cache taken off must as well: the total_ lines."""
    join(root, "4:cpuacct,memory:/a")
    mount(root, ("v1", "/", V1))
    group_v1(root, f"{V1}/a", limit=GIB, used=900 * MIB, cache=600 * MIB, shmem=100 * MIB)
    assert (read(root).used, read(root).binding) == (400 * MIB, "cgroup")


def test_v1_a_limit_above_what_the_container_sees_still_holds(root: Path) -> None:
    join(root, "4:memory:/docker/abc")
    mount(root, ("v1", "/docker/abc", V1))
    group_v1(root, V1, used=300 * MIB, above=GIB)
    assert (read(root).limit, read(root).available) == (GIB, 724 * MIB)


def test_v1_a_parent_that_does_not_count_its_children_does_not_limit_them(root: Path) -> None:
    join(root, "4:memory:/a/b")
    mount(root, ("v1", "/", V1))
    group_v1(root, f"{V1}/a/b", limit=4 * GIB, used=GIB)
    group_v1(root, f"{V1}/a", limit=GIB, used=GIB)
    trees.put(root, f"{V1}/a/memory.use_hierarchy", 0)
    assert (read(root).limit, read(root).available) == (4 * GIB, 3 * GIB)


def test_v1_before_4_20_shared_memory_is_what_is_on_no_file_list(root: Path) -> None:
    join(root, "4:memory:/a")
    mount(root, ("v1", "/", V1))
    group_v1(root, f"{V1}/a", limit=GIB, used=900 * MIB)
    stat = f"total_cache {700 * MIB}\ntotal_active_file {300 * MIB}\ntotal_inactive_file {200 * MIB}\n"
    trees.put(root, f"{V1}/a/memory.stat", stat)
    assert read(root).used == 400 * MIB


def test_hybrid_the_memory_controller_counts_wherever_it_is_attached(root: Path) -> None:
    """systemd's hybrid layout: v2 without a memory controller beside v1 with one."""
    join(root, "5:memory:/user.slice", "0::/user.slice/session")
    mount(root, ("v1", "/", V1), ("v2", "/", "/sys/fs/cgroup/unified"))
    group_v1(root, f"{V1}/user.slice", limit=GIB, used=256 * MIB)
    (root / "sys/fs/cgroup/unified/user.slice/session").mkdir(parents=True)
    assert (read(root).limit, read(root).share) == (GIB, 0.25)


@pytest.mark.parametrize(
    ("membership", "mounted"),
    [
        pytest.param("0::/", "/", id="own namespace"),
        pytest.param("0::/docker/abc", "/docker/abc", id="host paths, own group mounted"),
        pytest.param("0::/kubepods/pod1/abc", "/", id="host path, but only the own group is visible"),
        pytest.param("0::/../outside", "/", id="moved out of its namespace"),
        pytest.param("0::/", "/docker/abc", id="namespace entered after mounting"),
    ],
)
def test_in_a_container_its_own_group_is_found_at_the_top_of_the_mount(
    root: Path, membership: str, mounted: str
) -> None:
    join(root, membership)
    mount(root, ("v2", mounted, V2))
    group_v2(root, V2, limit=2 * GIB, used=GIB)
    assert (read(root).limit, read(root).share) == (2 * GIB, 0.5)


def test_a_group_below_a_container_root_also_obeys_the_container(root: Path) -> None:
    join(root, "4:memory:/docker/abc/job")
    mount(root, ("v1", "/docker/abc", V1))
    group_v1(root, f"{V1}/job", limit=4 * GIB, used=GIB)
    group_v1(root, V1, limit=2 * GIB, used=GIB)
    assert (read(root).limit, read(root).available) == (2 * GIB, GIB)


def test_names_that_only_begin_alike_are_different_groups(root: Path) -> None:
    join(root, "4:memory:/docker/abcdef")
    mount(root, ("v1", "/docker/abc", "/other"), ("v1", "/", V1))
    group_v1(root, "/other", limit=GIB, used=1)
    group_v1(root, f"{V1}/docker/abcdef", limit=2 * GIB, used=GIB)
    assert read(root).limit == 2 * GIB


def test_mount_points_with_spaces_are_understood(root: Path) -> None:
    join(root, "0::/a")
    mount(root, ("v2", "/", r"/my\040groups"))
    group_v2(root, "/my groups/a", limit=GIB, used=GIB // 2)
    assert read(root).share == 0.5


def test_a_process_moved_to_another_group_obeys_the_new_one(root: Path) -> None:
    join(root, "0::/a")
    mount(root, ("v2", "/", V2))
    group_v2(root, f"{V2}/a", limit=GIB, used=1)
    group_v2(root, f"{V2}/b", limit=2 * GIB, used=1)
    reader = Reader(root, environ={}, accelerators=Accelerators(modules={}))
    assert reader().limit == GIB
    join(root, "0::/b")
    assert reader().limit == 2 * GIB


def test_a_limit_changed_from_outside_holds_at_the_next_reading(root: Path) -> None:
    join(root, "0::/a")
    mount(root, ("v2", "/", V2))
    group_v2(root, f"{V2}/a", limit="max", used=1)
    reader = Reader(root, environ={}, accelerators=Accelerators(modules={}))
    assert reader().binding == "machine"
    group_v2(root, f"{V2}/a", limit=GIB, used=1)
    assert (reader().limit, reader().binding) == (GIB, "cgroup")


@pytest.mark.parametrize("broken", ["memory.current", "memory.stat"])
def test_a_limit_whose_use_cannot_be_read_is_an_error_not_an_empty_group(root: Path, broken: str) -> None:
    join(root, "0::/a")
    mount(root, ("v2", "/", V2))
    group_v2(root, f"{V2}/a", limit=GIB, used=GIB)
    trees.put(root, f"{V2}/a/{broken}", "?\n")
    with pytest.raises(ReadingError, match="/a cannot be read"):
        read(root)


def test_counters_that_disagree_for_a_moment_give_no_negative_use(root: Path) -> None:
    join(root, "0::/a")
    mount(root, ("v2", "/", V2))
    group_v2(root, f"{V2}/a", limit=GIB, used=10 * MIB, file=12 * MIB)
    assert (read(root).used, read(root).available) == (2 * GIB - GIB - GIB, GIB)


def test_a_kernel_without_control_groups_is_no_error(root: Path) -> None:
    (root / "proc/self/cgroup").unlink()
    assert read(root).binding == "machine"


def test_garbled_membership_is_an_error(root: Path) -> None:
    join(root, "0")
    with pytest.raises(ReadingError, match="control groups"):
        read(root)
