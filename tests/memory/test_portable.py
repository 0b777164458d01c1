"""macOS and Windows, through a pretended psutil; and the real psutil on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from memkit.errors import ReadingError
from memkit.memory.accelerators import Accelerators
from memkit.memory.portable import PortableSource
from memkit.memory.sample import Reader, Sample, anonymous_now
from memkit.units import GIB, MIB
from tests.memory.trees import FakePsutil


def read(library: object, **settings: object) -> Sample:
    settings.setdefault("environ", {})
    return Reader(Path("/none"), psutil=library, accelerators=Accelerators(modules={}), **settings)()  # type: ignore[arg-type]


def test_macos_tells_the_process_but_not_how_it_splits() -> None:
    sample = read(FakePsutil(pfaults=1, pageins=2))
    assert (sample.rss, sample.vms, sample.open_files) == (300 * MIB, 4 * GIB, 7)
    assert (sample.anonymous, sample.file_backed, sample.swap, sample.peak) == (None,) * 4
    assert (sample.limit, sample.available, sample.binding) == (16 * GIB, 4 * GIB, "machine")
    assert (sample.swap_total, sample.swap_used) == (2 * GIB, GIB)


def test_windows_tells_private_bytes_and_the_peak() -> None:
    sample = read(FakePsutil(num_fds=None, private=250 * MIB, peak_wset=500 * MIB))
    assert (sample.anonymous, sample.peak, sample.open_files) == (250 * MIB, 500 * MIB, None)


def test_limits_hold_there_too_and_the_missing_children_are_said() -> None:
    reader = Reader(Path("/none"), environ={"MEM_LIMIT": str(GIB)}, psutil=FakePsutil())
    assert (reader().binding, reader().used) == ("MEM_LIMIT", 300 * MIB)
    assert any("processes started from here" in note for note in reader.notes)


def test_a_machine_that_does_not_tell_its_swap_has_none_known() -> None:
    assert read(FakePsutil(swap_fails=True)).swap_total is None


def test_a_process_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(ReadingError, match="memory of this process"):
        read(FakePsutil(fails=True))


def test_private_memory_is_what_windows_calls_private_and_else_all_of_it() -> None:
    assert anonymous_now(PortableSource(library=FakePsutil(private=5 * MIB))) == 5 * MIB
    assert anonymous_now(PortableSource(library=FakePsutil())) == 300 * MIB


def test_without_proc_the_real_psutil_is_used(tmp_path: Path) -> None:
    sample = Reader(tmp_path, environ={}, accelerators=Accelerators(modules={}))()
    assert sample.rss > MIB
    assert 0 < sample.share < 1
    assert sample.open_files != 0
