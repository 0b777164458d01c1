"""Runs inside the kernel: writes down, line by line, what memory does, so that it can be read after the kernel died."""

from __future__ import annotations

import dataclasses
import heapq
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import memkit
from memkit.errors import MemkitError, ReadingError
from memkit.memory.sample import Sample
from memkit.memory.subscribers import Notice
from memkit.shown import plain
from memkit.wiring import Session

if TYPE_CHECKING:
    from memkit.notebook.cells import CellRecord, Cells

log = logging.getLogger("memkit")

MOST_RESOURCES = 200  # the largest are written down, the rest as a count and a sum
_MOST_IN_CELL = 100  # tracked resources; looking through more would hold up a cell
_SAMPLE_FIELDS = tuple(field.name for field in dataclasses.fields(Sample) if field.name not in ("devices", "zram"))


class Recorder:
    """Appends JSON lines to a file: readings, events, cells, and which resources are where; never a value.

    Each line is one write, so it is there when the process is killed; while the level is not normal the monitor's
    thread also has it synced to the disk. The file is opened for each write: nothing is held that a fork, an unload or
    a death could leave behind. A forked child writes nothing. Where the file cannot be written (a full disk), `error`
    says so and the recording ends; the notebook goes on.
    """

    def __init__(self, session: Session, cells: Cells, path: Path, interval: float = 0.5) -> None:
        self.error: str | None = None
        self._session, self._cells, self._interval = session, cells, interval
        self._path = os.fspath(path)
        self._pid = os.getpid()
        # Reentrant: a finalizer that runs in here may take a reading and so come here again.
        self._lock = threading.RLock()
        self._cursor = session.log.added
        self._resources: object = None
        self._wanted = False  # a reading, because a cell begins or ends
        self._thresholds = session.thresholds
        self._unsubscribe: tuple[Callable[[], None], ...] = ()
        self._before = session.settings.monitor.interval

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Write the header and listen; sampling goes on at `interval` seconds."""
        self._write(self._header())
        self._write_resources()
        monitor = self._session.monitor
        self._unsubscribe = (
            monitor.subscribe(self._on_sample, on="sample"),
            monitor.subscribe(self._on_tick, on="tick"),
            monitor.subscribe(self._on_tick, on="level"),
        )
        self._cells.listeners.append(self._on_cell)
        self._set_interval(self._interval)

    def stop(self) -> None:
        """Listen no longer; idempotent."""
        unsubscribe, self._unsubscribe = self._unsubscribe, ()
        if not unsubscribe or os.getpid() != self._pid:
            return
        for end in unsubscribe:
            end()
        if self._on_cell in self._cells.listeners:
            self._cells.listeners.remove(self._on_cell)
        self._write_events()
        self._write({"what": "stop", "time": time.time()})
        self._set_interval(self._before)

    def _set_interval(self, seconds: float) -> None:
        """As a setting: whatever else the notebook configures later leaves it as it is."""
        try:
            self._session.configure(interval=seconds)
        except ReadingError as error:
            log.warning("memkit: the first reading for the report failed: %s", error)

    # -- what is told ----------------------------------------------------------------------------------------------

    def _on_sample(self, notice: Notice) -> None:
        if notice.error is not None:
            self._write({"what": "failed reading", "time": time.time(), "error": str(notice.error)})
        elif notice.sample is not None:
            self._write_sample(notice.sample, notice.level)
        self._write_events()
        self._write_resources()
        self._sync(notice)

    def _on_tick(self, notice: Notice) -> None:
        wanted, self._wanted = self._wanted, False
        if wanted or self._session.log.added != self._cursor:
            self._write_reading(notice.level)
            self._write_events()
            self._write_resources()
            self._sync(notice)

    def _on_cell(self, what: str, item: Any) -> None:
        """In the thread of the cell, so only what costs microseconds; the rest is left to the monitor's thread."""
        began = time.thread_time()
        if what == "cell":
            self._write_cell(item.source or "", item.cell_id)
        elif what == "record":
            self._write_record(item)
        self._write_events()
        if len(self._session.tracker) <= _MOST_IN_CELL:
            self._write_resources()
        self._wanted = True
        self._session.monitor.nudge()
        if what == "record":  # `cells` counts what is done at the beginning of a cell
            self._session.own_seconds += time.thread_time() - began

    # -- lines -----------------------------------------------------------------------------------------------------

    def _header(self) -> dict[str, Any]:
        session = self._session
        directory = session.settings.store.directory
        return {
            "what": "start",
            "time": time.time(),
            "memkit": memkit.__version__,
            "pid": self._pid,
            "limit": session.settings.monitor.limit,
            "thresholds": plain(self._thresholds),
            "interval": self._interval,
            "store": None if directory is None else os.path.abspath(directory),
        }

    def _write_sample(self, sample: Sample, level: str) -> None:
        if self._session.thresholds is not self._thresholds:
            self._thresholds = self._session.thresholds
            self._write({"what": "thresholds", "time": sample.time, **plain(self._thresholds)})
        fields: dict[str, Any] = {name: getattr(sample, name) for name in _SAMPLE_FIELDS}
        if sample.devices:
            fields["devices"] = plain(sample.devices)
        self._write({"what": "sample", "level": level, **fields})

    def _write_cell(self, source: str, cell_id: str | None) -> None:
        number = self._cells.number + 1
        self._write({"what": "cell", "time": time.time(), "number": number, "cell_id": cell_id, "title": title(source)})

    def _write_record(self, record: CellRecord) -> None:
        fields = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
        self._write({"what": "record", **fields, "source": record.title})

    def _write_reading(self, level: str) -> None:
        """A reading between the monitor's own, that nobody acts on: a short cell has one, a release shows at once."""
        try:
            self._write_sample(self._session.read(), level)
        except ReadingError as error:
            self._write({"what": "failed reading", "time": time.time(), "error": str(error)})

    def _write_events(self) -> None:
        with self._lock:
            fresh = self._session.log.since(self._cursor)
            self._cursor = self._session.log.added
            for event in fresh:
                self._write({"what": "event", **event._asdict()})

    def _write_resources(self) -> None:
        """The table of what is tracked, if it is another than the last time."""
        rows = [(r.name, r.policy.type, r.size, r.tier, r.state) for r in self._session.tracker.resources()]
        with self._lock:
            if rows == self._resources:
                return
            self._resources = rows
            shown = (
                rows if len(rows) <= MOST_RESOURCES else heapq.nlargest(MOST_RESOURCES, rows, key=lambda row: row[2])
            )
            total = sum(row[2] for row in rows)
            self._write(
                {"what": "resources", "time": time.time(), "count": len(rows), "bytes": total, "rows": shown},
            )

    # -- the file --------------------------------------------------------------------------------------------------

    def _write(self, line: dict[str, Any]) -> None:
        if self.error is not None or os.getpid() != self._pid:
            return
        data = (json.dumps(line, default=str) + "\n").encode()
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, data)  # one call: lines of several threads do not mix
            finally:
                os.close(descriptor)
        except OSError as error:
            self.error = str(error)
            log.warning("memkit: the report's recording ends here: %s", error)

    def _sync(self, notice: Notice) -> None:
        """Only from the monitor's callbacks: it takes milliseconds, which a cell should not wait for."""
        if notice.level == "normal" or self.error is not None or os.getpid() != self._pid:
            return
        try:
            descriptor = os.open(self._path, os.O_WRONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            log.warning("memkit: the report's recording could not be synced: %s", error)


def title(source: str) -> str:
    """The first line of a cell that says something."""
    lines = (line.strip() for line in source.splitlines())
    return next((line for line in lines if line and not line.startswith("#")), "")[:60]


def begin(path: str, interval: float) -> None:
    """Record what the shell that runs this does, until memkit is unloaded there or the kernel ends."""
    from IPython.core.getipython import get_ipython

    from memkit.notebook import extension

    loaded = extension.loaded(get_ipython())
    if loaded is None:
        raise MemkitError("memkit is not loaded in this shell - %load_ext memkit")
    recorder = Recorder(loaded.session, loaded.cells, Path(path), interval)
    recorder.start()
    loaded.on_unload.append(recorder.stop)
