"""Mappings that nothing else limits are refused before they are made; every other is as without the guard."""

from __future__ import annotations

import mmap
import os
import pickle
import sys
from collections.abc import Iterator
from multiprocessing import heap, shared_memory
from pathlib import Path

import pytest

from memkit.errors import MemoryGuardError
from memkit.memory.guard import mappings as module
from memkit.memory.guard import shared
from memkit.memory.guard.mappings import Mappings, wish
from tests.memory.guard.gates import MIB, FakeGate, python

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the flags are those of POSIX")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA holds on Linux only")
Original = mmap.mmap


@pytest.fixture
def room() -> FakeGate:
    return FakeGate(left=64 * MIB)


@pytest.fixture
def installed(room: FakeGate) -> Iterator[Mappings]:
    made = Mappings()
    made.install(room)
    made.adapt(shared_memory)
    made.adapt(heap)
    yield made
    made.uninstall()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    """A sparse file of 1 GiB."""
    path = tmp_path / "large"
    with path.open("w+b") as opened:
        opened.truncate(2**30)
        yield opened.fileno()


# -- what is asked for ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "options", "anonymous", "private", "writable"),
    [
        ((-1, 10), {}, True, False, True),
        ((-1,), {"length": 10}, True, False, True),
        ((-1, 10, mmap.MAP_PRIVATE), {}, True, True, True),
        ((-1, 10), {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS}, True, True, True),
        ((-1, 10), {"access": mmap.ACCESS_COPY}, True, True, True),
        ((-1, 10), {"access": mmap.ACCESS_READ}, True, False, False),
        ((-1, 10, mmap.MAP_SHARED, mmap.PROT_READ), {}, True, False, False),
        ((3, 10), {}, False, False, True),
        ((3, 10), {"access": mmap.ACCESS_COPY}, False, True, True),
        ((3, 10, mmap.MAP_PRIVATE, mmap.PROT_READ), {}, False, True, False),
    ],
)
def test_the_arguments_are_read_as_the_real_one_reads_them(args, options, anonymous, private, writable):
    found = wish(args, options)
    assert (found.length, found.anonymous, found.private, found.writable) == (10, anonymous, private, writable)


@pytest.mark.parametrize("args", [(), (-1,), (-1, "many"), (-1, -5), (None, 10), (-1, 10, "flags")])
def test_wrong_arguments_are_left_to_the_real_one(args, installed):
    assert wish(args, {}) is None
    with pytest.raises((TypeError, OverflowError)):
        mmap.mmap(*args)


def test_a_length_of_zero_is_the_rest_of_the_file(file):
    assert wish((file, 0), {"offset": 2**20}).length == 2**30 - 2**20


# -- anonymous memory -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [mmap.MAP_SHARED, mmap.MAP_PRIVATE])
def test_anonymous_memory_that_does_not_fit_is_refused(flags, installed, room):
    with pytest.raises(MemoryGuardError, match=r"an anonymous mapping takes about 65\.0 MiB; 64\.0 MiB are left"):
        mmap.mmap(-1, 65 * MIB, flags)
    assert room.asked == [65 * MIB], "room was to be made first"


def test_anonymous_memory_that_fits_is_made(installed):
    with mmap.mmap(-1, 20 * MIB) as made:
        made[-1:] = b"x"
        assert len(made) == 20 * MIB


def test_room_that_could_be_made_is_enough(installed, room):
    room.more = 10 * MIB
    mmap.mmap(-1, 65 * MIB).close()


@linux
def test_shared_memory_promised_before_and_not_touched_counts(installed, room):
    room.left = 150 * MIB
    with mmap.mmap(-1, 100 * MIB) as first:
        with pytest.raises(MemoryGuardError, match=r"100\.0 MiB for shared memory made before and not used yet"):
            mmap.mmap(-1, 100 * MIB)
        for page in range(0, len(first), mmap.PAGESIZE):
            first[page] = 1
        mmap.mmap(-1, 100 * MIB).close()  # touched, it is counted in what is left


def test_memory_that_can_only_be_read_takes_none_and_passes(installed, room):
    mmap.mmap(-1, 2**30, prot=mmap.PROT_READ).close()
    assert room.asked == []


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"access": mmap.ACCESS_READ}, {"access": mmap.ACCESS_WRITE}])
def test_a_shared_map_of_a_file_larger_than_memory_passes(options, installed, room, file):
    mmap.mmap(file, 2**30, **options).close()
    assert (room.asked, room.lifts) == ([], 0)


@pytest.mark.parametrize("options", [{"access": mmap.ACCESS_COPY}, {"flags": mmap.MAP_PRIVATE}])
def test_a_private_map_of_a_file_passes_outside_the_limit(options, installed, room, file):
    mmap.mmap(file, 2**30, **options).close()
    mmap.mmap(file, 0, **options).close()
    assert (room.asked, room.lifts, room.inside) == ([], 2, 0)


@linux
def test_only_private_writable_maps_of_files_count_as_data():
    """The reason for lifting the limit around some and leaving others alone."""
    done = python("""
        import mmap, tempfile
        with tempfile.TemporaryFile() as file:
            file.truncate(2**28)
            for options in ({}, {"access": mmap.ACCESS_READ}, {"access": mmap.ACCESS_COPY}):
                before = data()
                with mmap.mmap(file.fileno(), 2**28, **options):
                    print((data() - before) >> 20)
    """)
    assert done.stdout.split() == ["0", "0", "256"]


@linux
def test_a_copy_on_write_array_larger_than_the_limit_can_be_had():
    pytest.importorskip("numpy")
    done = python("""
        import contextlib, tempfile, numpy
        from tests.memory.guard.gates import FakeGate
        from memkit.memory.guard.mappings import Mappings
        class Gate(FakeGate):
            @contextlib.contextmanager
            def lifted(self):
                unlimited()
                yield
                leave(20)
        file = tempfile.NamedTemporaryFile()
        file.truncate(2**28)
        leave(20)
        try:
            numpy.memmap(file.name, mode="c")
        except OSError as error:
            print(error.errno)
        Mappings().install(Gate())
        array = numpy.memmap(file.name, mode="c")
        array[7] = 1
        print(array.nbytes >> 20, array[7])
    """)
    assert done.stdout.split() == ["12", "256", "1"], done.stderr


# -- it is mmap.mmap --------------------------------------------------------------------------------------------------


def test_nobody_can_tell_the_difference(installed):
    early = Original(-1, 4096)
    with mmap.mmap(-1, 4096) as made:
        assert mmap.mmap is not Original
        assert type(made) is mmap.mmap
        assert isinstance(made, Original)
        assert isinstance(early, mmap.mmap)
        assert issubclass(Original, mmap.mmap)
        assert not isinstance(b"", mmap.mmap)
        assert not issubclass(bytes, mmap.mmap)
        assert repr(made).replace(hex(id(made)), "") == repr(early).replace(hex(id(early)), "")
        assert mmap.mmap.__name__ == "mmap"
        assert mmap.mmap.__doc__ == Original.__doc__
        with pytest.raises(TypeError, match="cannot pickle"):
            pickle.dumps(made)
        assert not hasattr(made, "__dict__")
        assert memoryview(made).nbytes == 4096
    early.close()


def test_a_subclass_is_a_class_of_its_own(installed):
    class Mine(mmap.mmap):
        def __init__(self, *args: int, **options: int) -> None:
            self.note = "mine"

    with Mine(-1, 4096) as made, mmap.mmap(-1, 4096) as other:
        assert made.note == "mine"
        assert isinstance(made, Mine)
        assert isinstance(made, mmap.mmap)
        assert not isinstance(other, Mine)
        assert not issubclass(Original, Mine)


def test_a_subclass_is_refused_alike_and_lives_on_after_uninstalling(installed):
    class Mine(mmap.mmap):
        pass

    with pytest.raises(MemoryGuardError):
        Mine(-1, 65 * MIB)
    installed.uninstall()
    Mine(-1, 65 * MIB).close()
    assert issubclass(Mine, mmap.mmap)


def test_numpy_finds_the_mapping_behind_its_array(installed, tmp_path):
    numpy = pytest.importorskip("numpy")
    array = numpy.memmap(tmp_path / "a", mode="w+", shape=(10,))
    array[3] = 1
    array.flush()
    assert isinstance(array._mmap, mmap.mmap)
    assert isinstance(array.base, mmap.mmap)
    assert numpy.frombuffer(array._mmap, dtype="u1").nbytes == 10


def test_installing_twice_and_uninstalling_leaves_no_trace(room):
    before = (mmap.mmap, shared_memory.SharedMemory.__init__, heap.Arena.__init__)
    made = Mappings()
    for _ in range(2):
        made.install(room)
        made.adapt(shared_memory)
        made.adapt(heap)
    assert len(made._patches) == 3
    made.uninstall()
    made.uninstall()
    assert (mmap.mmap, shared_memory.SharedMemory.__init__, heap.Arena.__init__) == before
    mmap.mmap(-1, 65 * MIB).close()


def test_what_another_has_put_in_its_place_stays(installed):
    class Other(mmap.mmap):
        pass

    mmap.mmap = Other
    try:
        installed.uninstall()
        assert mmap.mmap is Other
        Other(-1, 65 * MIB).close()
    finally:
        mmap.mmap = Original


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_asked_for_nothing(installed, room):
    room.left = 0
    child = os.fork()
    if child == 0:
        try:
            mmap.mmap(-1, 65 * MIB)
        except BaseException:  # noqa: BLE001 - a child must not go on with the tests
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# -- multiprocessing --------------------------------------------------------------------------------------------------


def test_shared_memory_that_does_not_fit_is_refused_and_leaves_no_segment(installed):
    before = set(Path("/dev/shm").iterdir()) if Path("/dev/shm").exists() else set()
    with pytest.raises(MemoryGuardError, match="shared memory takes about"):
        shared_memory.SharedMemory(create=True, size=65 * MIB)
    with pytest.raises(MemoryGuardError):
        shared_memory.SharedMemory(None, True, 65 * MIB)
    assert not before or set(Path("/dev/shm").iterdir()) == before


def test_shared_memory_that_fits_is_made_and_can_be_attached_to_by_name(installed, room):
    made = shared_memory.SharedMemory(create=True, size=20 * MIB)
    try:
        room.left = 0
        other = shared_memory.SharedMemory(made.name)
        other.buf[7] = 9
        assert made.buf[7] == 9
        other.close()
    finally:
        made.close()
        made.unlink()


def test_shared_memory_that_would_fill_its_file_system_is_refused(installed, monkeypatch):
    """The file is made without taking anything; touching a page without room ends the process with SIGBUS."""
    monkeypatch.setattr(module, "room_on", lambda folder: 10 * MIB)
    with pytest.raises(MemoryGuardError, match=r"does not fit on /dev/shm, where 10\.0 MiB are left"):
        shared_memory.SharedMemory(create=True, size=20 * MIB)


def test_an_array_of_multiprocessing_that_does_not_fit_is_refused(installed):
    with pytest.raises(MemoryGuardError, match="an array of multiprocessing takes about"):
        heap.Arena(65 * MIB)
    assert heap.Arena(2 * MIB).size == 2 * MIB


@linux
def test_promised_memory_is_what_is_mapped_and_not_touched(tmp_path):
    assert shared.promised(40 * MIB, str(tmp_path / "hidden")) == 0
    smaps = tmp_path / "smaps"
    smaps.write_text(
        "7f0000000000-7f0010000000 rw-s 00000000 00:01 1024                       /dev/zero (deleted)\n"
        "Size:             262144 kB\nRss:                1024 kB\nVmFlags: rd wr sh\n"
        "7f0020000000-7f0020100000 rw-p 00000000 00:00 0 \nSize:  1024 kB\nRss:   0 kB\nVmFlags: rd wr\n"
        "7f0030000000-7f0030100000 rw-s 00000000 00:18 7   /dev/shm/psm_1\nSize: 1024 kB\nRss:  0 kB\nVmFlags: rd\n"
    )
    assert shared.promised(40 * MIB, str(smaps)) == 255 * MIB + MIB
    assert shared.promised(MIB, str(smaps)) == 0, "not walked for a small one"
