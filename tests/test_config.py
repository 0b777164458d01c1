"""Settings: layers, merging, and errors that say everything at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from memkit import config
from memkit.errors import ConfigError
from memkit.units import GIB, MIB


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """No test sees the developer's own configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "user_file", lambda: tmp_path / "home" / config.FILE_NAME)
    monkeypatch.delenv("MEMKIT_CONFIG", raising=False)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def problems(text: str, tmp_path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        config.load(write(tmp_path / "bad.yaml", text))
    return str(caught.value)


def test_packaged_defaults_are_those_of_the_documentation():
    types = config.load().types
    assert {name: (p.ttl, p.on_expire) for name, p in types.items() if name != "general"} == {
        "model_shards": (300, ("unload",)),
        "model_weights_cache": (600, ("unload",)),
        "subtitle_index": (900, ("spill",)),
        "audio_cache": (120, ("compress",)),
        "render_cache": (180, ("compress", "release")),
        "temp_buffers": (30, ("release",)),
    }
    by_priority = sorted((p.priority, name) for name, p in types.items() if name != "general")
    assert [name for _, name in by_priority] == [
        "temp_buffers", "render_cache", "audio_cache", "subtitle_index", "model_weights_cache", "model_shards",
    ]  # fmt: skip
    assert types["model_shards"].min_keep == 1


def test_a_variable_without_a_type_is_never_dropped():
    general = config.load().types["general"]
    assert general.ttl is None
    assert "release" not in (*general.on_expire, *general.on_pressure)


def test_defaults_in_code_and_in_the_packaged_file_agree():
    assert config.load().monitor == config.MonitorSettings()
    assert config.load().store == config.StoreSettings()


def test_layers_win_in_the_order_explicit_environment_folder_user(tmp_path, monkeypatch):
    explicit = write(tmp_path / "a.yaml", "monitor: {interval: 1 s}")
    named = write(tmp_path / "b.yaml", "monitor: {interval: 2 s, warning: 50%}")
    monkeypatch.setenv("MEMKIT_CONFIG", str(named))
    write(tmp_path / "configs" / config.FILE_NAME, "monitor: {interval: 3 s, warning: 55%, recovery: 40%}")
    write(tmp_path / "home" / config.FILE_NAME, "monitor: {recovery: 45%, emergency: 99%}")
    got = config.load(explicit).monitor
    assert (got.interval, got.warning, got.recovery, got.emergency) == (1, 0.50, 0.40, 0.99)


def test_files_are_merged_key_by_key(tmp_path):
    file = write(tmp_path / "a.yaml", "types: {temp_buffers: {ttl: 10 s}, mine: {priority: 99}}")
    types = config.load(file).types
    assert types["temp_buffers"].ttl == 10
    assert types["temp_buffers"].on_expire == ("release",), "keys that were not given keep their packaged value"
    assert types["mine"] == config.Policy("mine", priority=99)


def test_every_value_knows_its_origin(tmp_path):
    file = write(tmp_path / "a.yaml", "types: {temp_buffers: {ttl: 10 s}}")
    origins = config.load(file).origins
    assert origins["types.temp_buffers.ttl"] == str(file)
    assert origins["types.temp_buffers.priority"] == str(config.packaged_file())


def test_every_problem_is_reported_at_once_with_file_path_value_and_what_is_allowed(tmp_path):
    text = problems(
        """
types:
  temp_buffers: {ttl: 30 parsecs, tll: 3, on_expire: explode, priority: 1.5}
monitor: {warning: 95%, reserve: lots}
extra: 1
""",
        tmp_path,
    )
    assert text.count(str(tmp_path / "bad.yaml")) >= 7
    assert "types.temp_buffers.ttl: '30 parsecs'" in text
    assert "types.temp_buffers.tll: unknown key - did you mean 'ttl'?" in text
    assert "types.temp_buffers.on_expire: 'explode'" in text
    assert "release | compress | spill | unload | keep" in text
    assert "types.temp_buffers.priority: 1.5" in text
    assert "monitor.reserve: 'lots'" in text
    assert "extra: unknown key" in text
    assert "recovery < warning < emergency" in text


@pytest.mark.parametrize(
    "text",
    [
        "monitor: {warning: 95%}",
        "monitor: {recovery: 75%}",
        "monitor: {warning: 90%, emergency: 90%}",
        "monitor: {interval: 0}",
        "monitor: {interval: -1 s}",
        "types: {x: {ttl: 0}}",
        "types: {x: {ttl: -5}}",
        "types: {x: {min_keep: -1}}",
        "types: {x: {on_expire: []}}",
        "types: {x: {compress: perhaps}}",
        "types: [a, b]",
        "types: {x: 5}",
        "just text",
        "monitor: {limit: 0}",
        "{1: 2}",
    ],
)
def test_wrong_settings_are_refused(text, tmp_path):
    assert str(tmp_path / "bad.yaml") in problems(text, tmp_path)


def test_malformed_yaml_names_file_and_line(tmp_path):
    assert "is not YAML" in problems("types: {a: [", tmp_path)
    assert re.search(r"line \d", problems("types: {a: [", tmp_path))


def test_an_unreadable_file_is_named(tmp_path):
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00nonsense\xff")
    with pytest.raises(ConfigError, match=r"bad\.yaml: cannot be read"):
        config.load(tmp_path / "bad.yaml")


def test_a_file_asked_for_by_name_must_exist(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="no such configuration file"):
        config.load(tmp_path / "missing.yaml")
    monkeypatch.setenv("MEMKIT_CONFIG", str(tmp_path / "gone.yaml"))
    with pytest.raises(ConfigError, match=r"gone\.yaml"):
        config.load()


def test_overrides_win_over_files_and_are_validated_alike(tmp_path):
    file = write(tmp_path / "a.yaml", "monitor: {warning: 50%, recovery: 40%}")
    assert config.load(file, overrides=[("c.Memkit", {"monitor": {"warning": "60%"}})]).monitor.warning == 0.60
    with pytest.raises(ConfigError, match=r"c\.Memkit: monitor\.warning"):
        config.load(overrides=[("c.Memkit", {"monitor": {"warning": "much"}})])


def test_settings_can_be_changed_one_key_at_a_time():
    settings = config.load()
    changed = config.changed(settings, "set by you", {"limit": "2GiB"})
    assert (settings.monitor.limit, changed.monitor.limit) == (None, 2 * GIB)
    assert changed.monitor.reserve == 512 * MIB
    assert changed.origins["monitor.limit"] == "set by you"
    assert changed.types == settings.types
    with pytest.raises(ConfigError, match="set by you: monitor"):
        config.changed(settings, "set by you", {"warning": "99%"})


def test_settings_are_frozen():
    settings = config.load()
    with pytest.raises(AttributeError):
        settings.monitor.interval = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        settings.types["x"] = None  # type: ignore[index]
