"""A kernel spoken to as a notebook speaks to it: cells, answers, interrupts, clicks; and what a user sees of it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.manager import start_new_kernel

from tests.guard.profiles import environment

_SECONDS = 30.0
_INTERRUPT_AFTER = 0.2  # seconds: the cell is past its printing by then, and where it is meant to be interrupted
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# What %timeit adds where the machine was busy meanwhile.
_CHANCE = re.compile(r"The slowest run took .*?being cached\.\n", re.DOTALL)
# Times, counts, addresses and process ids differ from run to run.
_VARYING = re.compile(r"0x[0-9a-f]+|\d+(\.\d+)?(e[+-]?\d+)?( ?(ns|us|µs|μs|ms|s)\b)?|model_id=\S+|[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: what is typed where it asks; whether it is interrupted once it has printed something."""

    code: str
    answers: tuple[str, ...] = ()
    interrupt: bool = False
    click: str = ""  # an expression for the id of the button to click once the cell has ended


@dataclass(slots=True)
class Seen:
    """What one cell showed: streams, results, errors, questions; without what varies from run to run.

    Questions come by a channel of their own, so that their place among the rest is chance.
    """

    parts: list[tuple[str, str]] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    status: str = ""

    def add(self, kind: str, text: str) -> None:
        if self.parts and self.parts[-1][0] == kind == "stream":
            self.parts[-1] = (kind, self.parts[-1][1] + text)
        else:
            self.parts.append((kind, text))


def _lasting(text: str) -> str:
    """What of a text is the same in every run."""
    return _VARYING.sub("#", _CHANCE.sub("", _COLOURS.sub("", text)))


class _Listener:
    """Takes what a cell shows and asks; interrupts it once, when it has first printed something."""

    def __init__(self, cell: Cell, manager: Any, client: Any) -> None:
        self.seen = Seen()
        self._answers = list(cell.answers)
        self._interrupts = 1 if cell.interrupt else 0
        self._manager, self._client = manager, client

    def shown(self, message: dict[str, Any]) -> None:
        kind, content = message["header"]["msg_type"], message["content"]
        if kind == "stream":
            self.seen.add(kind, content["text"])
            self._interrupt()
        elif kind in ("execute_result", "display_data"):
            types = ", ".join(sorted(content["data"]))
            self.seen.add(kind, f"{types}: {content['data'].get('text/plain', '')}")
        elif kind == "error":
            self.seen.add(kind, "\n".join([content["ename"], content["evalue"], *content["traceback"]]))

    def _interrupt(self) -> None:
        if self._interrupts:
            self._interrupts -= 1
            time.sleep(_INTERRUPT_AFTER)
            self._manager.interrupt_kernel()

    def asked(self, message: dict[str, Any]) -> None:
        self.seen.questions.append(message["content"]["prompt"])
        self._client.input(self._answers.pop(0))

    def ended(self, reply: dict[str, Any]) -> None:
        self.seen.status = reply["status"]
        for payload in reply.get("payload", []):
            self.seen.add(payload["source"], str(payload.get("data", {}).get("text/plain", "")))
        self.seen.parts = [(kind, _lasting(text)) for kind, text in self.seen.parts]


class Conversation:
    """One kernel with or without memkit, and the cells said to it in turn."""

    def __init__(self, folder: Path, loaded: bool) -> None:
        work = folder / "work"
        work.mkdir(parents=True)
        env = environment(folder / "ipython", loaded)
        self._manager, self._client = start_new_kernel(kernel_name="python3", env=env, cwd=str(work))

    def say(self, cells: Iterable[Cell]) -> list[Seen]:
        """What each of the cells showed."""
        return [self._say(cell) for cell in cells]

    def _say(self, cell: Cell) -> Seen:
        listener = _Listener(cell, self._manager, self._client)
        reply = self._client.execute_interactive(
            cell.code, allow_stdin=True, timeout=_SECONDS, output_hook=listener.shown, stdin_hook=listener.asked
        )
        listener.ended(reply["content"])
        if cell.click:
            self._click(cell.click)
        return listener.seen

    def _click(self, expression: str) -> None:
        reply = self._client.execute("", silent=True, user_expressions={"id": expression})
        while (message := self._client.get_shell_msg(timeout=_SECONDS))["parent_header"]["msg_id"] != reply:
            continue
        comm_id = message["content"]["user_expressions"]["id"]["data"]["text/plain"].strip("'")
        content = {"comm_id": comm_id, "data": {"method": "custom", "content": {"event": "click"}}}
        self._client.shell_channel.send(self._client.session.msg("comm_msg", content))

    def close(self) -> None:
        """End the kernel."""
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)
        self._manager.cleanup_resources()
