"""The command line: ``python -m memkit status | demo | report | run``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import memkit
from memkit import demo
from memkit.errors import MemkitError

METHODS = ("auto", "cgroup", "systemd", "rlimit")  # of `run`, as memkit.notebook.limited.choice has them


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("memkit", description="Memory of notebook kernels: what holds it, and until when.")
    parser.add_argument("--version", action="version", version=f"memkit {memkit.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    status = commands.add_parser("status", help="this machine's effective limit, what is available, the level")
    status.add_argument("--json", action="store_true", help="as JSON, in bytes")
    status.set_defaults(run=_status)

    show = commands.add_parser("demo", help="see the lifecycle at work on real arrays")
    show.add_argument("part", nargs="?", default="all", choices=("all", *demo.PARTS))
    show.set_defaults(run=_demo)

    report = commands.add_parser(
        "report", help="run a notebook in a real kernel and write an HTML report of its memory"
    )
    report.add_argument("notebook", help="the notebook to run; it is not changed")
    report.add_argument("-o", "--output", help="the HTML file (default: beside the notebook)")
    report.add_argument("--timeout", type=float, metavar="S", help="seconds a cell may take (default: no limit)")
    report.add_argument("--interval", type=float, default=0.5, metavar="S", help="seconds between readings")
    report.add_argument("--allow-errors", action="store_true", help="go on after a cell that raises")
    report.set_defaults(run=_report)

    limited = commands.add_parser("run", help="run a notebook as on a machine with less memory")
    _run_arguments(limited)
    limited.set_defaults(run=_run)
    return parser


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("notebook", help="the notebook to run; it is not changed")
    add("--memory", metavar="SIZE", help="such as 4GiB; with --fit the most to try (default: what is available)")
    add("--fit", action="store_true", help="find the smallest memory in which it still completes")
    add("-o", "--output", help="the executed notebook (default: NOTEBOOK.run.ipynb beside it)")
    add("--html", metavar="OUT.html", help="also write a report of its memory")
    add("--method", choices=METHODS, default="auto", help="what holds the limit (default: the best there is)")
    add("--no-memkit", action="store_true", help="without memkit in the kernel, and so without its guard")
    add("--timeout", type=float, metavar="S", help="seconds a cell may take (default: no limit)")
    add("--interval", type=float, default=0.5, metavar="S", help="seconds between readings")
    add("--allow-errors", action="store_true", help="go on after a cell that raises")


def _status(options: argparse.Namespace) -> int:
    from memkit.wiring import Session

    session = Session()
    try:
        answer = session.status()
    finally:
        session.close()
    print(answer.to_json() if options.json else answer.headline())
    return 0


def _demo(options: argparse.Namespace) -> int:
    demo.run(options.part)
    return 0


def _report(options: argparse.Namespace) -> int:
    from memkit.notebook.report.command import report_command

    return report_command(options)


def _run(options: argparse.Namespace) -> int:
    from memkit.notebook.limited.command import run_command

    return run_command(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 1 for an error of memkit's, or what the command says."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        return code
    except MemkitError as error:
        print(f"memkit: {error}", file=sys.stderr)
        return 1
