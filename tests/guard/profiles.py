"""Kernels whose IPython profile loads memkit before the first cell, or does not."""

from __future__ import annotations

import os
from pathlib import Path

_LOADED = 'get_config().InteractiveShellApp.exec_lines = ["%load_ext memkit"]\n'


def environment(folder: Path, loaded: bool) -> dict[str, str]:
    """What such a kernel's environment is; the profile and all that it writes lie in the folder."""
    profile, store = folder / "profile_default", folder / "store"
    profile.mkdir(parents=True)
    store.mkdir()
    (profile / "ipython_kernel_config.py").write_text(_LOADED if loaded else "")
    named = {"IPYTHONDIR": str(folder), "MEMKIT_STORE_DIR": str(store)}
    inherited = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    return {**inherited, **named, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
