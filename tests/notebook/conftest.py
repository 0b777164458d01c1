"""A real IPython shell, fresh for each test, with and without memkit."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from memkit import api, config
from memkit.notebook.ipython_refs import forget_traceback

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    """A fresh shell that leaves the process as it was: singleton, hooks, `sys.modules['__main__']`."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    saved = {name: getattr(sys, name) for name in ("excepthook", "displayhook")}
    main, previous, path = sys.modules["__main__"], InteractiveShell._instance, list(sys.path)
    InteractiveShell.clear_instance()
    history = {"enabled": False, "hist_file": ":memory:"}
    settings = Config(HistoryManager=history, InteractiveShell={"colors": "nocolor"})
    made = InteractiveShell.instance(config=settings)
    yield made
    forget_traceback(made)
    made.restore_sys_module_state()
    made._atexit_once()
    InteractiveShell.clear_instance()
    if previous is not None:
        InteractiveShell._instance = previous
    sys.modules["__main__"], sys.path[:] = main, path
    for name, value in saved.items():
        setattr(sys, name, value)


class Notebook:
    """Runs cells in a shell with memkit loaded, and gives what a reader of the notebook would see."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.error: BaseException | None = None

    def __call__(self, source: str) -> str:
        """Run a cell; its text output. The error, if any, is in `error`."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            result = self.shell.run_cell(source, store_history=True)
        self.error = result.error_in_exec or result.error_before_exec
        return _COLOURS.sub("", out.getvalue())

    def __getitem__(self, name: str) -> Any:
        return self.shell.user_ns[name]

    def __contains__(self, name: str) -> bool:
        return name in self.shell.user_ns

    @property
    def session(self) -> Any:
        return api.current()

    def tier(self, name: str) -> str:
        return self.session.tracker.get(name).tier


@pytest.fixture
def plain(shell: InteractiveShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notebook]:
    """A notebook without memkit yet; whatever is loaded in it is unloaded at the end.

    The guard is off: it would limit the process that runs the tests. It is tried in processes and kernels of its own.
    """
    monkeypatch.setenv("MEMKIT_STORE_DIR", str(tmp_path / "store"))
    (tmp_path / "store").mkdir()
    (tmp_path / "user.yaml").write_text("guard: {enabled: false, rescue: false}\n")
    monkeypatch.setattr(config, "user_file", lambda: tmp_path / "user.yaml")
    made = Notebook(shell)
    yield made
    made("%unload_ext memkit")
    assert api.current() is None or api.current().close() is None
    api.use(None)


@pytest.fixture
def notebook(plain: Notebook) -> Notebook:
    """A notebook with memkit loaded."""
    plain("%load_ext memkit")
    return plain
