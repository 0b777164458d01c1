"""The session's folder is private, on a real disk, and removed by whoever may: never another live kernel's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from memkit.errors import DemotionError
from memkit.lifecycle.store import Store, sweep_leftovers
from memkit.lifecycle.store import folder as folder_module
from memkit.lifecycle.store.folder import choose_base, is_in_memory

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX permissions and signals")
SESSION = """
import sys, time
from pathlib import Path
from memkit.lifecycle.store import Store
store = Store(Path(sys.argv[1]))
stored = store.spill({"x": list(range(100_000))})
print(store.directory, flush=True)
sys.stdin.read()
if sys.argv[2] == "close":
    store.close()
"""


def start(base: Path, end: str = "leave") -> tuple[subprocess.Popen[str], Path]:
    """A real process with something spilled, waiting."""
    process = subprocess.Popen(
        [sys.executable, "-c", SESSION, str(base), end], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def finish(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=30)


def test_no_folder_before_the_first_spill(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.directory is None
    store.pack({"x": [1] * 100_000})
    assert list(tmp_path.iterdir()) == []
    store.close()


def test_close_removes_the_folder(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.spill({"x": [1]})
    folder = store.directory
    assert folder is not None
    assert folder.exists()
    store.close()
    store.close()
    assert not folder.exists()


@posix
def test_what_a_killed_kernel_left_is_removed_by_the_next_spill(tmp_path: Path) -> None:
    """And what a live one has is not, whichever was first."""
    live, live_folder = start(tmp_path)
    dead, dead_folder = start(tmp_path)
    dead.send_signal(signal.SIGKILL)
    dead.wait()
    assert dead_folder.exists()
    store = Store(tmp_path)
    store.spill({"x": [1]})
    assert not dead_folder.exists()
    assert (live_folder / "1.values").exists()
    assert store.directory is not None
    assert sweep_leftovers(tmp_path) == 0
    assert store.directory.exists()
    store.close()
    assert live_folder.exists()
    finish(live)
    finish(dead)
    assert sweep_leftovers(tmp_path) > 0
    assert not live_folder.exists()


@posix
def test_a_kernel_that_closes_leaves_nothing(tmp_path: Path) -> None:
    process, folder = start(tmp_path, "close")
    finish(process)
    assert not folder.exists()


@posix
def test_a_folder_that_is_being_set_up_is_left_alone(tmp_path: Path) -> None:
    """For an hour; then its maker is taken to have died."""
    users = tmp_path / f"memkit-{os.getuid()}"
    users.mkdir(mode=0o700)
    fresh, old = users / "new-1-a", users / "new-1-b"
    fresh.mkdir()
    old.mkdir()
    long_ago = time.time() - 7200
    os.utime(old, (long_ago, long_ago))
    sweep_leftovers(tmp_path)
    assert fresh.exists()
    assert not old.exists()


def test_sweeping_where_nothing_was_ever_spilled(tmp_path: Path) -> None:
    assert sweep_leftovers(tmp_path) == 0
    assert list(tmp_path.iterdir()) == []


def test_where_files_cannot_be_locked_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on some network disks: leftovers stay, but no live kernel loses anything."""

    def refuse(fd: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(folder_module.lock, "_try", refuse)
    one, other = Store(tmp_path), Store(tmp_path)
    stored = one.spill({"x": [1, 2]})
    other.spill({"y": [1]})
    assert one.load(stored) == {"x": [1, 2]}
    one.close()
    other.close()


@posix
def test_a_users_folder_that_is_not_private_is_refused(tmp_path: Path) -> None:
    users = tmp_path / f"memkit-{os.getuid()}"
    users.mkdir(mode=0o755)
    users.chmod(0o755)
    with pytest.raises(DemotionError, match="not private"):
        Store(tmp_path).spill({"x": [1]})
    users.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    users.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DemotionError, match="link"):
        Store(tmp_path).spill({"x": [1]})


@pytest.mark.skipif(not hasattr(os, "chown") or os.geteuid() != 0, reason="only root can make another user's folder")
def test_another_users_folder_is_refused(tmp_path: Path) -> None:
    users = tmp_path / f"memkit-{os.getuid()}"
    users.mkdir(mode=0o700)
    os.chown(users, 12345, -1)
    with pytest.raises(DemotionError, match="not private to you"):
        Store(tmp_path).spill({"x": [1]})


MOUNTS = """/dev/sda1 / ext4 rw 0 0
tmpfs /tmp tmpfs rw 0 0
/dev/sdb1 /tmp/on\\040disk ext4 rw 0 0
tmpfs /run tmpfs rw 0 0
""".splitlines()


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/var/tmp", False), ("/tmp", True), ("/tmp/x/y", True), ("/tmp/on disk/x", False), ("/tmpx", False)],
)
@posix
def test_memory_backed_disks_are_recognised(path: str, expected: bool) -> None:
    """Spilling to one would free nothing."""
    assert is_in_memory(Path(path), MOUNTS) is expected


def test_the_folder_is_the_setting_then_the_environment_then_a_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMKIT_STORE_DIR", str(tmp_path / "env"))
    assert choose_base(tmp_path / "setting") == tmp_path / "setting"
    assert choose_base(None) == tmp_path / "env"
    monkeypatch.delenv("MEMKIT_STORE_DIR")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert choose_base(None) == tmp_path
    monkeypatch.setattr(folder_module, "is_in_memory", lambda path: path == tmp_path)
    assert choose_base(None) != tmp_path
    monkeypatch.setattr(folder_module, "is_in_memory", lambda path: True)
    with pytest.raises(DemotionError, match=r"store\.directory.*MEMKIT_STORE_DIR"):
        choose_base(None)
