"""The subcommands of `%memkit` that tell of cells."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memkit.errors import MemkitError
from memkit.notebook.accounting.badge import switch
from memkit.notebook.accounting.ranking import ORDERS, Ranking
from memkit.notebook.accounting.written import write
from memkit.notebook.answers import Done
from memkit.notebook.commands import _argument, _command
from memkit.shown import Shown
from memkit.wiring import Session

if TYPE_CHECKING:
    from memkit.notebook.extension import Extension


@_command(
    _argument("--count", "-n", type=int, default=15, metavar="N", help="how many (default 15, 0 = all)"),
    _argument("--sort", "-s", choices=tuple(ORDERS), default="peak", help="by what (default peak)"),
    _argument("--write", "-w", nargs="?", const="", metavar="FILE", help="into the cells of this notebook (or FILE)"),
)
def cells(session: Session, options: argparse.Namespace) -> Shown:
    """Every cell that ran: its peak above the beginning, what it keeps (delta) and gave back, time, garbage
    collection. With --write the figures become metadata of the cells in the notebook file."""
    records = tuple(_extension(session).cells.records)
    if options.write is None:
        return Ranking.of(records, options.sort, options.count or None)
    written = write(_file(options.write), records)
    missing = f"; {written.missing} others that ran are not in it" if written.missing else ""
    return Done(
        f"written into {written.cells} cells of {written.path}{missing}\n"
        "where it is open, JupyterLab will say at the next save that the file has changed: revert, or overwrite it"
    )


@_command(_argument("what", nargs="?", choices=("on", "off", "status"), default="status"))
def badge(session: Session, options: argparse.Namespace) -> Shown:
    """One line after each cell: its peak, delta and time."""
    extension = _extension(session)
    if options.what != "status":
        switch(extension.cells, extension.shell, options.what == "on")
    if extension.cells.badge is None:
        return Done("badges are off (%memkit badge on; for every kernel: c.Memkit.badge = True)")
    return Done("badges are on: one line after each cell (%memkit badge off)")


def _extension(session: Session) -> Extension:
    from memkit.notebook.extension import loaded

    interactive: Any = sys.modules.get("IPython")
    shell = interactive.get_ipython() if interactive is not None else None
    extension = None if shell is None else loaded(shell)
    if extension is None or extension.session is not session:
        raise MemkitError("cells are accounted for in a notebook: %load_ext memkit")
    return extension


def _file(given: str) -> Path:
    """The file named, or the notebook that the server says this kernel belongs to."""
    if given:
        return Path(given).expanduser()
    name = os.environ.get("JPY_SESSION_NAME", "")
    if name and Path(name).is_file():
        return Path(name)
    raise MemkitError("this kernel is not told which file its notebook is: %memkit cells --write NOTEBOOK.ipynb")
