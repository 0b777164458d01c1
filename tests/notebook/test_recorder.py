"""The recording inside the kernel: complete, cheap, harmless, and readable after a death."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from memkit import config
from memkit.memory.pressure import Thresholds
from memkit.notebook.cells import CellRecord
from memkit.notebook.report import recorder as module
from memkit.notebook.report.recorder import Recorder, title
from memkit.notebook.report.trace import Tail
from memkit.units import GIB, MIB
from memkit.wiring import Session

from .test_plots import sample


class Reader:
    """Readings that a test decides on."""

    user_limit: int | None = None
    notes = ()

    def __init__(self) -> None:
        self.now, self.own = 0.0, 300 * MIB

    def __call__(self) -> Any:
        self.now += 1
        return sample(self.now, own=self.own)

    def close(self) -> None: ...


class Cells:
    """As much of the real ones as a recorder knows: listeners, and the number of cells that have ended."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[str, Any], object]] = []
        self.number = 0

    def tell(self, what: str, item: Any) -> None:
        for listener in self.listeners:
            listener(what, item)

    def run(self, source: str) -> None:
        self.tell("cell", SimpleNamespace(source=source, cell_id="id"))
        self.number += 1
        self.tell("record", record(self.number, source))


def record(number: int = 1, source: str = "x = 1", **fields: Any) -> CellRecord:
    known = {
        "number": number, "cell_id": "id", "source": source, "started": 5.0, "seconds": 0.5, "before": 10, "after": 30,
        "peak": 99, "method": "kernel high-water mark", "gc_seconds": 0.0, "error": None,
    }  # fmt: skip
    return CellRecord(**{**known, **fields})


@pytest.fixture
def session() -> Iterator[Session]:
    made = Session(config.load(), reader=Reader())  # type: ignore[arg-type]
    yield made
    made.close()


@pytest.fixture
def cells() -> Cells:
    return Cells()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "recording.jsonl"


@pytest.fixture
def recorder(session: Session, cells: Cells, path: Path) -> Iterator[Recorder]:
    made = Recorder(session, cells, path, interval=0.25)  # type: ignore[arg-type]
    made.start()
    yield made
    made.stop()


def lines(path: Path, what: str | None = None) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in found if what in (None, line["what"])]


def turn(session: Session) -> None:
    """What the monitor's thread does when it wakes, without a thread."""
    session.monitor._turn()


def test_a_recording_begins_with_what_it_was_made_under(recorder: Recorder, path: Path, session: Session) -> None:
    first = lines(path)[0]
    assert first["what"] == "start"
    assert first["thresholds"]["warning"] == session.thresholds.warning
    assert first["pid"] == os.getpid()


@pytest.mark.usefixtures("recorder")
def test_every_reading_is_read_back_as_it_was_taken(session: Session, path: Path) -> None:
    taken = [session.monitor.sample_now() for _ in range(3)]
    assert Tail(path).read().samples[-3:] == taken


@pytest.mark.usefixtures("recorder")
def test_each_event_is_written_once_and_in_order(session: Session, path: Path) -> None:
    session.track([1], name="a", ttl=None)
    turn(session)
    session.track([2], name="b", ttl=None)
    session.release("a")
    turn(session)
    turn(session)
    events = Tail(path).read().events
    assert [(event.kind, event.name) for event in events] == [
        ("registered", "a"), ("registered", "b"), ("released", "a"),
    ]  # fmt: skip
    assert events == list(session.log)


@pytest.mark.usefixtures("recorder")
def test_a_cell_is_on_file_before_it_runs_and_its_record_after(cells: Cells, path: Path) -> None:
    """So that after a death the last line about cells names the one that ran."""
    cells.tell("cell", SimpleNamespace(source="# note\nbig = load()", cell_id=None))
    assert lines(path)[-1]["title"] == "big = load()"
    assert Tail(path).read().cell == "big = load()"
    cells.tell("record", record(source="# note\nbig = load()", error="MemoryError"))
    (read,) = Tail(path).read().records
    assert (read.number, read.peak, read.delta, read.error) == (1, 99, 20, "MemoryError")
    assert read.source == "big = load()"  # the first line that says something, not the whole cell


def test_what_is_resident_is_on_file_at_the_end_of_each_cell_but_never_a_value(
    recorder: Recorder, session: Session, cells: Cells, path: Path
) -> None:
    secret = ["the value itself"]
    session.track(secret, name="df", type="temp_buffers", ttl=None)
    cells.run("x")
    (resident,) = Tail(path).read().resources
    assert (resident.name, resident.type, resident.tier, resident.state) == ("df", "temp_buffers", "ram", "active")
    assert resident.size > 0
    assert "the value itself" not in path.read_text()


@pytest.mark.usefixtures("recorder")
def test_the_table_of_resources_is_written_only_when_it_has_changed(session: Session, cells: Cells, path: Path) -> None:
    session.track([1], name="a", ttl=None)
    for _ in range(5):
        cells.run("x")
    assert len(lines(path, "resources")) == 2  # the empty one at the start, and this


def test_of_very_many_resources_the_largest_are_written_and_the_rest_counted(
    recorder: Recorder, session: Session, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_RESOURCES", 3)
    for size in range(10):
        session.track(name=f"r{size}", hold="external", size=size * MIB, ttl=None)
    turn(session)
    trace = Tail(path).read()
    assert sorted(r.name for r in trace.resources) == ["r7", "r8", "r9"]
    assert trace.resource_count == 10


@pytest.mark.usefixtures("recorder")
def test_many_resources_are_left_to_the_monitors_thread(
    session: Session, cells: Cells, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking through them would hold up the cell."""
    monkeypatch.setattr(module, "_MOST_IN_CELL", 1)
    for name in "abc":
        session.track([name], name=name, ttl=None)
    cells.run("x")
    assert len(lines(path, "resources")) == 1
    turn(session)
    assert Tail(path).read().resource_count == 3


@pytest.mark.usefixtures("recorder")
def test_a_cell_has_a_reading_of_its_own_however_short_it_is(session: Session, cells: Cells, path: Path) -> None:
    turn(session)
    before = len(lines(path, "sample"))
    cells.run("x")
    turn(session)
    assert len(lines(path, "sample")) == before + 1


def test_sampling_is_as_dense_as_asked_for_until_the_end(recorder: Recorder, session: Session, path: Path) -> None:
    """Also when the notebook changes another setting."""
    assert session.monitor.interval == 0.25
    session.configure(limit="1GiB")
    assert session.monitor.interval == 0.25
    recorder.stop()
    recorder.stop()
    assert session.monitor.interval == config.load().monitor.interval
    assert len(lines(path, "stop")) == 1


def test_after_stop_nothing_is_listened_to_any_more(
    recorder: Recorder, session: Session, cells: Cells, path: Path
) -> None:
    recorder.stop()
    size = path.stat().st_size
    session.monitor.sample_now()
    cells.run("x")
    turn(session)
    assert path.stat().st_size == size
    assert cells.listeners == []


@pytest.mark.usefixtures("recorder")
def test_changed_thresholds_are_on_file(session: Session, path: Path) -> None:
    session.configure(warning="50%", recovery="40%")
    assert Tail(path).read().thresholds == Thresholds(
        0.5, session.thresholds.emergency, 0.4, session.thresholds.reserve
    )


def test_it_is_synced_to_the_disk_only_while_memory_is_short(
    recorder: Recorder, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(module.os, "fsync", synced.append)
    session.monitor.sample_now()
    assert not synced
    session.reader.own = int(0.8 * GIB)  # type: ignore[attr-defined]
    session.monitor.sample_now()
    assert synced
    assert session.monitor.level == "warning"


def test_no_cell_waits_for_the_disk(
    recorder: Recorder, session: Session, cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.reader.own = int(0.8 * GIB)  # type: ignore[attr-defined]
    session.monitor.sample_now()
    synced: list[int] = []
    monkeypatch.setattr(module.os, "fsync", synced.append)
    cells.run("x")
    assert not synced


def test_a_failed_reading_is_written_as_an_error_never_as_zero(
    recorder: Recorder, session: Session, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from memkit.errors import ReadingError

    def fail() -> None:
        raise ReadingError("no /proc here")

    before = len(lines(path, "sample"))
    monkeypatch.setattr(session.monitor, "_read", fail)
    with pytest.raises(ReadingError):
        session.monitor.sample_now()
    assert len(lines(path, "sample")) == before
    assert "no /proc here" in Tail(path).read().errors[0]


def test_a_disk_that_fills_ends_the_recording_and_nothing_else(
    recorder: Recorder, session: Session, cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "write", full)
    cells.run("x")
    session.monitor.sample_now()
    assert "No space left" in str(recorder.error)
    assert not session.monitor.errors


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_forked_child_writes_nothing(recorder: Recorder, session: Session, cells: Cells, path: Path) -> None:
    before = path.read_bytes()
    child = os.fork()
    if child == 0:
        try:
            cells.run("in the child")
            session.monitor.sample_now()
            recorder.stop()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert path.read_bytes() == before


def test_a_title_is_the_first_line_that_says_something() -> None:
    assert title("\n# comment\n  x = 1  \ny") == "x = 1"
    assert title("# only this") == ""
    assert len(title("x" * 500)) == 60


# -- reading back ------------------------------------------------------------------------------------------------------


def test_a_line_that_was_torn_by_a_death_is_left_out_and_the_rest_is_read(recorder: Recorder, path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"what": "cell", "ti')
    tail = Tail(path)
    assert tail.read().cell is None
    with path.open("ab") as file:  # it was only slow
        file.write(b'tle": "y"}\n')
    assert tail.read().cell == "y"


def test_rubbish_and_lines_of_another_version_do_not_stop_the_reading(path: Path) -> None:
    path.write_text('not json\n{"what": "of the future"}\n{"what": "sample"}\n{"what": "cell", "title": "y"}\n')
    trace = Tail(path).read()
    assert trace.cell == "y"
    assert len(trace.errors) == 2


def test_a_recording_that_never_began_is_empty(tmp_path: Path) -> None:
    trace = Tail(tmp_path / "missing").read()
    assert not trace.begun
    assert not trace.samples
