"""Answers of magics that no other part gives: help, settings, the monitor's readings, the event log."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memkit.config import Settings
from memkit.errors import ConfigError
from memkit.lifecycle.events import Event
from memkit.lifecycle.resource import ResourceInfo
from memkit.shown import Shown, Table, plain
from memkit.units import format_bytes, format_share, format_ttl
from memkit.wiring import Session

_SHARES = ("warning", "emergency", "recovery")
_SIZES = ("reserve", "limit", "max_bytes")
_TIMES = ("interval", "reload_delay", "ttl")


@dataclass(frozen=True, slots=True, repr=False)
class Done(Shown):
    """Something was done that one line says."""

    text: str

    def headline(self) -> str:
        return self.text

    @classmethod
    def registered(cls, infos: Sequence[ResourceInfo], known: Collection[str]) -> Done:
        """One line for each registered resource."""
        lines = []
        for info in infos:
            verb = "registered again, replacing the earlier registration:" if info.name in known else "registered"
            about = f"{info.type}, {format_bytes(info.size)}, ttl {format_ttl(info.ttl)}, priority {info.priority}"
            lines.append(f"{verb} {info.name} ({about})")
        return cls("\n".join(lines))


@dataclass(frozen=True, slots=True, repr=False)
class Help(Shown):
    """How something is used."""

    text: str
    commands: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def overview(cls, commands: Mapping[str, str]) -> Help:
        return cls("%memkit SUBCOMMAND - each has --help; -q shows nothing, -o NAME keeps the answer", commands)

    def headline(self) -> str:
        return self.text

    def tables(self) -> tuple[Table, ...]:
        return (Table(("subcommand", "what it does"), [(k, " ".join(v.split())) for k, v in self.commands.items()]),)


@dataclass(frozen=True, slots=True, repr=False)
class Config(Shown):
    """Settings by key path: value as it would be written, and where it came from."""

    values: Mapping[str, str]
    origins: Mapping[str, str]

    @classmethod
    def of(cls, settings: Settings, key: str | None = None) -> Config:
        """All settings, or those whose path ends in, or begins with, `key`."""
        values: dict[str, str] = {}
        for name in ("monitor", "store"):
            values.update(_written(name, getattr(settings, name)))
        for name, policy in settings.types.items():
            values.update(_written(f"types.{name}", policy))
        if key:
            values = {path: value for path, value in values.items() if key in path.split(".") or path.startswith(key)}
        if not values:
            raise ConfigError([f"there is no setting {key!r}; %memkit config shows all"])
        return cls(values, {path: settings.origins.get(path, "built in") for path in values})

    def headline(self) -> str:
        return "settings in force"

    def tables(self) -> tuple[Table, ...]:
        rows = [(path, value, self.origins[path]) for path, value in self.values.items()]
        return (Table(("key", "value", "from"), rows),)


def _written(prefix: str, section: Any) -> dict[str, str]:
    fields = [field.name for field in dataclasses.fields(section) if field.name != "type"]
    return {f"{prefix}.{name}": _as_text(name, getattr(section, name)) for name in fields}


def _as_text(name: str, value: Any) -> str:
    if value is None:
        return "none"
    if name in _SHARES:
        return format_share(value)
    if name in _SIZES:
        return format_bytes(value)
    if name in _TIMES:
        return format_ttl(value)
    return ", ".join(value) if isinstance(value, tuple) else str(value)


@dataclass(frozen=True, slots=True, repr=False)
class MonitorState(Shown):
    """Whether the monitor runs, how often, and everything it read last."""

    running: bool
    interval: float
    level: str
    samples: int
    errors: tuple[str, ...]
    notes: tuple[str, ...]
    readings: Mapping[str, Any]

    @classmethod
    def of(cls, session: Session) -> MonitorState:
        monitor = session.monitor
        return cls(
            running=monitor.running,
            interval=monitor.interval,
            level=monitor.level,
            samples=len(monitor.history.recent()),
            errors=tuple(str(error) for error in monitor.errors),
            notes=session.reader.notes,
            readings=plain(session.read()),
        )

    def headline(self) -> str:
        state = f"running every {format_ttl(self.interval)}" if self.running else "stopped (%memkit monitor start)"
        first = f"monitor {state}, level {self.level}, {self.samples} samples kept"
        return "\n".join([first, *self.notes, *self.errors])

    def tables(self) -> tuple[Table, ...]:
        return (Table(("reading", "value"), [(name, _reading(name, v)) for name, v in self.readings.items()]),)


_COUNTS = ("blocks", "open_files", "gc_runs")


def _reading(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name == "time":
        return time.strftime("%H:%M:%S", time.localtime(value))
    if name.startswith("psi"):
        return format_share(value)
    if name.endswith("seconds"):
        return f"{value:.3f} s"
    if isinstance(value, (int, float)) and name not in _COUNTS:
        return format_bytes(value)
    return str(value)


@dataclass(frozen=True, slots=True, repr=False)
class Events(Shown):
    """A part of the event log."""

    events: tuple[Event, ...]

    def headline(self) -> str:
        return f"{len(self.events)} events"

    def tables(self) -> tuple[Table, ...]:
        rows = [
            (time.strftime("%H:%M:%S", time.localtime(e.time)), e.kind, e.name, e.type, format_bytes(e.size), e.reason)
            for e in self.events
        ]
        return (Table(("time", "event", "name", "type", "size", "why"), rows, frozenset({"size"})),)

    def to_dict(self) -> dict[str, Any]:
        return {"events": [event._asdict() for event in self.events]}
