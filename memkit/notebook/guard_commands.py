"""`%memkit guard`."""

from __future__ import annotations

import argparse

from memkit.errors import MemkitError
from memkit.notebook.commands import _argument, _command
from memkit.shown import Shown
from memkit.wiring import Session


@_command(
    _argument("what", nargs="?", choices=("status", "on", "off", "limit"), default="status"),
    _argument("size", nargs="?", metavar="SIZE", help="with limit: 2GiB, or none"),
)
def guard(session: Session, options: argparse.Namespace) -> Shown:
    """A cell that needs more memory than is left ends with an error instead of killing the kernel: what is active here
    and what it costs; on, off; `limit 2GiB` as on a smaller machine."""
    found = session.guard
    if options.what == "limit":
        if options.size is None:
            raise MemkitError("limit needs a size: %memkit guard limit 2GiB, or none")
        session.configure(limit=options.size)
    elif options.what != "status":
        (found.start if options.what == "on" else found.stop)()
    return found.status()
