"""Settings from `ipython_config.py`."""

from __future__ import annotations

import traitlets
from traitlets.config import Configurable

from memkit import config


def _setting(help: str) -> traitlets.Any:
    """Text or a number; what it may be is checked where all settings are."""
    return traitlets.Any("", help=help).tag(config=True)


# Traits of the guard section, by the key each sets there; all others are keys of the monitor section.
_GUARD = {"guard": "enabled", "rescue": "rescue", "badge": "badge"}


class Memkit(Configurable):
    """What `c.Memkit.warning = "70%"` and the like set; they win over all configuration files."""

    config_file = traitlets.Unicode("", help="a configuration file to use first").tag(config=True)
    warning = _setting("share of the limit at which the level becomes warning, such as 75%")
    emergency = _setting("share of the limit at which it becomes emergency, such as 90%")
    recovery = _setting("share of the limit below which it is normal again, such as 70%")
    reserve = _setting("bytes kept free so that handlers can run, such as 512MiB")
    limit = _setting("use less memory than the machine has, such as 2GiB")
    interval = _setting("time between two readings, such as 5 s")

    guard = _setting("False: cells are not kept from exhausting memory")
    rescue = _setting("False: variables die with the kernel")
    badge = _setting("True: one line after each cell says what it took")

    def settings(self) -> config.Settings:
        """The settings from files, with these laid over them; raises ConfigError."""
        given = {name: value for name in self.class_trait_names(config=True) if (value := getattr(self, name)) != ""}
        file = given.pop("config_file", None)
        guard = {_GUARD[name]: given.pop(name) for name in _GUARD if name in given}
        document = {section: keys for section, keys in (("monitor", given), ("guard", guard)) if keys}
        return config.load(file, overrides=[("c.Memkit", document)] if document else [])
