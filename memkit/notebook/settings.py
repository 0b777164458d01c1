"""Settings from `ipython_config.py`."""

from __future__ import annotations

import traitlets
from traitlets.config import Configurable

from memkit import config


def _setting(help: str) -> traitlets.Any:
    """Text or a number; what it may be is checked where all settings are."""
    return traitlets.Any("", help=help).tag(config=True)


class Memkit(Configurable):
    """What `c.Memkit.warning = "70%"` and the like set; they win over all configuration files."""

    config_file = traitlets.Unicode("", help="a configuration file to use first").tag(config=True)
    warning = _setting("share of the limit at which the level becomes warning, such as 75%")
    emergency = _setting("share of the limit at which it becomes emergency, such as 90%")
    recovery = _setting("share of the limit below which it is normal again, such as 70%")
    reserve = _setting("bytes kept free so that handlers can run, such as 512MiB")
    limit = _setting("use less memory than the machine has, such as 2GiB")
    interval = _setting("time between two readings, such as 5 s")

    def settings(self) -> config.Settings:
        """The settings from files, with these laid over them; raises ConfigError."""
        names = [name for name in self.class_trait_names(config=True) if name != "config_file"]
        given = {name: value for name in names if (value := getattr(self, name)) != ""}
        return config.load(self.config_file or None, overrides=[("c.Memkit", {"monitor": given})] if given else [])
