"""Settings from YAML files, merged key by key into frozen, validated objects.

Layers, the first wins: an explicit path, ``MEMKIT_CONFIG``, ``./configs``, the user's configuration folder, the
packaged defaults. Every problem of every layer is reported at once, and nothing is applied while there is one.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from memkit.errors import ConfigError, UnitError
from memkit.units import MIB, parse_bytes, parse_seconds, parse_share

FILE_NAME = "releasable_resources.yaml"

Action = Literal["release", "compress", "spill", "unload", "keep"]
Compress = Literal["auto", "always", "never"]
Reload = Literal["never", "on_use", "when_calm"]


@dataclass(frozen=True, slots=True)
class Policy:
    """How resources of one type are kept and let go; `ttl` in seconds, None = never."""

    type: str
    ttl: float | None = None
    priority: int = 40
    on_expire: tuple[Action, ...] = ("spill",)
    on_pressure: tuple[Action, ...] = ("compress", "spill")
    compress: Compress = "auto"
    min_keep: int = 0
    reload: Reload = "when_calm"


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """When pressure begins and ends: seconds, bytes, and shares of the effective limit."""

    interval: float = 5.0
    warning: float = 0.75
    emergency: float = 0.90
    recovery: float = 0.70
    reserve: int = 512 * MIB
    reload_delay: float = 60.0
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Where demoted values rest."""

    directory: Path | None = None
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """Whether cells are kept from exhausting memory, and variables from dying with the kernel; bytes and seconds."""

    enabled: bool = True
    rescue: bool = True
    rescue_max_bytes: int | None = None
    rescue_keep: float = 86400.0
    badge: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be configured; `origins` maps a key path to the layer it came from."""

    types: Mapping[str, Policy]
    monitor: MonitorSettings = MonitorSettings()
    store: StoreSettings = StoreSettings()
    guard: GuardSettings = GuardSettings()
    origins: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Key:
    """How one value is read, and the words for what it may be."""

    parse: Callable[[Any], Any]
    allowed: str


def _one_of(words: tuple[str, ...]) -> _Key:
    def parse(value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            raise UnitError("not one of the allowed words")
        return value

    return _Key(parse, " | ".join(words))


def _actions(value: Any) -> tuple[str, ...]:
    words = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if not words or any(word not in get_args(Action) for word in words):
        raise UnitError("not an action or a list of actions")
    return words


def _integer(low: int, high: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise UnitError(f"not a whole number from {low} to {high}")
        return value

    return parse


def _yes_or_no(value: Any) -> bool:
    if not isinstance(value, bool):
        raise UnitError("not true or false")
    return value


def _optional(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None or value == "none" else parse(value)


def _seconds(value: Any) -> float:
    seconds = parse_seconds(value)
    if not seconds:
        raise UnitError("must be longer than nothing")
    return seconds


def _positive_bytes(value: Any) -> int:
    size = parse_bytes(value)
    if not size:
        raise UnitError("must be more than nothing")
    return size


def _path(value: Any) -> Path:
    if not isinstance(value, str) or not value:
        raise UnitError("not a path")
    return Path(value).expanduser()


_DURATION, _SIZE, _SHARE = "a duration such as 30 s or 5 min", "a size such as 512MiB", "a share such as 75%"
_YES_OR_NO = "true | false"
_ACTION_WORDS = " | ".join(get_args(Action)) + ", or a list of these"
_POLICY = {
    "ttl": _Key(_optional(_seconds), _DURATION + ", or none"),
    "priority": _Key(_integer(-1000, 1000), "a whole number from -1000 to 1000"),
    "on_expire": _Key(_actions, _ACTION_WORDS),
    "on_pressure": _Key(_actions, _ACTION_WORDS),
    "compress": _one_of(get_args(Compress)),
    "min_keep": _Key(_integer(0, 10**9), "a whole number, 0 or more"),
    "reload": _one_of(get_args(Reload)),
}
_SECTIONS: dict[str, dict[str, _Key]] = {
    "monitor": {
        "interval": _Key(_seconds, _DURATION),
        "warning": _Key(parse_share, _SHARE),
        "emergency": _Key(parse_share, _SHARE),
        "recovery": _Key(parse_share, _SHARE),
        "reserve": _Key(parse_bytes, _SIZE),
        "reload_delay": _Key(parse_seconds, _DURATION),
        "limit": _Key(_optional(_positive_bytes), _SIZE + ", or none"),
    },
    "store": {
        "directory": _Key(_optional(_path), "a folder, or none"),
        "max_bytes": _Key(_optional(_positive_bytes), _SIZE + ", or none"),
    },
    "guard": {
        "enabled": _Key(_yes_or_no, _YES_OR_NO),
        "rescue": _Key(_yes_or_no, _YES_OR_NO),
        "rescue_max_bytes": _Key(_optional(_positive_bytes), _SIZE + ", or none"),
        "rescue_keep": _Key(_seconds, _DURATION),
        "badge": _Key(_yes_or_no, _YES_OR_NO),
    },
}


class _Merge:
    """Values by key path from all layers, and every problem met on the way."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, ...], Any] = {}
        self.origins: dict[str, str] = {}
        self.problems: list[str] = []

    def add(self, source: str, document: Any) -> None:
        """Lay one document over those added before."""
        sections = self._mapping(source, (), document, ["types", *_SECTIONS])
        for section, content in sections.items():
            if section == "types":
                for name, keys in self._mapping(source, ("types",), content).items():
                    self._keys(source, ("types", name), keys, _POLICY)
            else:
                self._keys(source, (section,), content, _SECTIONS[section])

    def _keys(self, source: str, path: tuple[str, ...], content: Any, keys: dict[str, _Key]) -> None:
        if path[0] == "types":
            self.values.setdefault(path, {})
        for name, value in self._mapping(source, path, content, list(keys)).items():
            place = (*path, name)
            try:
                self.values[place] = keys[name].parse(value)
            except UnitError as error:
                shown = "" if repr(value) in str(error) else f"{value!r}: "
                self._problem(source, place, f"{shown}{error}; allowed: {keys[name].allowed}")
            else:
                self.origins[".".join(place)] = source

    def _mapping(self, source: str, path: tuple[str, ...], content: Any, allowed: list[str] | None = None) -> Any:
        """The content as a mapping of the allowed keys; what is not allowed becomes a problem."""
        if content is None:
            return {}
        if not isinstance(content, Mapping):
            self._problem(source, path, f"{content!r}: must be a mapping of keys to values")
            return {}
        good = {}
        for name, value in content.items():
            if not isinstance(name, str) or (allowed is not None and name not in allowed):
                words = allowed or ["a name"]
                hint = closest(str(name), words)
                self._problem(source, (*path, str(name)), f"unknown key{hint}; allowed: {', '.join(words)}")
            else:
                good[name] = value
        return good

    def _problem(self, source: str, path: tuple[str, ...], text: str) -> None:
        self.problems.append(f"{source}: {'.'.join(path) or 'document'}: {text}")

    def check_order(self) -> None:
        """Recovery < warning < emergency, whichever layers they came from."""
        got = {key: self.section("monitor").get(key) for key in ("recovery", "warning", "emergency")}
        given = [value for value in got.values() if value is not None]
        if given != sorted(set(given)):
            where = {self.origins.get(f"monitor.{key}") for key in got}
            shown = ", ".join(f"{key} {value:.0%}" for key, value in got.items())
            source = " and ".join(sorted(filter(None, where)))
            self._problem(source, ("monitor",), f"{shown}: must be in the order recovery < warning < emergency")

    def section(self, *path: str) -> dict[str, Any]:
        """The merged keys below a path."""
        return {key[-1]: value for key, value in self.values.items() if key[:-1] == path and len(key) == len(path) + 1}

    def settings(self) -> Settings:
        """The merged, validated settings; raises ConfigError with every problem."""
        self.check_order()
        if self.problems:
            raise ConfigError(self.problems)
        names = [key[1] for key in self.values if len(key) == 2 and key[0] == "types"]
        types = {name: Policy(name, **self.section("types", name)) for name in names}
        return Settings(
            MappingProxyType(types),
            MonitorSettings(**self.section("monitor")),
            StoreSettings(**self.section("store")),
            GuardSettings(**self.section("guard")),
            MappingProxyType(self.origins),
        )


def packaged_file() -> Path:
    """The defaults that come with memkit: inside the wheel, or beside the package in a source checkout."""
    here = Path(__file__).parent
    inside = here / "configs" / FILE_NAME
    return inside if inside.exists() else here.parent / "configs" / FILE_NAME


def user_file() -> Path:
    """The user's own file, where the platform keeps such things."""
    import platformdirs

    return Path(platformdirs.user_config_dir("memkit", appauthor=False)) / FILE_NAME


def search(explicit: str | Path | None = None, environ: Mapping[str, str] = os.environ) -> list[Path]:
    """The files in force, the one that wins first. A file that was asked for by name must exist."""
    named = [Path(path).expanduser() for path in (explicit, environ.get("MEMKIT_CONFIG")) if path]
    missing = [path for path in named if not path.is_file()]
    if missing:
        raise ConfigError([f"{path}: there is no such configuration file" for path in missing])
    found = (path for path in (Path("configs") / FILE_NAME, user_file()) if path.is_file())
    packaged = packaged_file()
    return [*named, *(path for path in found if not path.samefile(packaged)), packaged]


def _read(path: Path) -> Any:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML has it
    try:
        return yaml.load(path.read_text(encoding="utf-8"), loader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from error
    except yaml.YAMLError as error:
        raise ConfigError([f"{path}: is not YAML: {' '.join(str(error).split())}"]) from error


def load(
    explicit: str | Path | None = None,
    *,
    overrides: Iterable[tuple[str, Mapping[str, Any]]] = (),
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Settings from all layers; `overrides` are (source, document) pairs laid over the files in turn.

    Raises ConfigError listing each problem with its file, key path, value and what is allowed.
    """
    merge = _Merge()
    for path in reversed(search(explicit, environ)):
        try:
            merge.add(str(path), _read(path))
        except ConfigError as error:
            merge.problems.extend(error.problems)
    for source, document in overrides:
        merge.add(source, document)
    return merge.settings()


def changed(settings: Settings, source: str, monitor: Mapping[str, Any]) -> Settings:
    """The same settings with some of the `monitor` section changed; raises ConfigError and changes nothing."""
    merge = _Merge()
    merge.add("in force", {"monitor": {key: getattr(settings.monitor, key) for key in _SECTIONS["monitor"]}})
    merge.origins.update(settings.origins)
    merge.add(source, {"monitor": monitor})
    new = merge.settings()
    return dataclasses.replace(settings, monitor=new.monitor, origins=new.origins)


def closest(word: str, words: Iterable[str]) -> str:
    """`` - did you mean 'x'?`` for the nearest of the words, or nothing."""
    import difflib

    near = difflib.get_close_matches(word, list(words), 1)
    return f" - did you mean {near[0]!r}?" if near else ""
