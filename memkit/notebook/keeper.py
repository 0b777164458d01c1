"""IPython as a keeper of values."""

from __future__ import annotations

from typing import Any

from memkit.notebook import ipython_refs


class IPythonKeeper:
    """What one IPython shell keeps in `Out`, `_` and the last traceback."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell

    def references(self, value: Any) -> int:
        return ipython_refs.count(self._shell, value)

    def forget(self, value: Any) -> tuple[str, ...]:
        return ipython_refs.forget(self._shell, value)

    def forget_traceback(self, value: Any) -> bool:
        holds = ipython_refs.traceback_holds(self._shell, value)
        return holds and ipython_refs.forget_traceback(self._shell)
