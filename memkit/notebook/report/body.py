"""The notebook itself as a part of a page: its cells and outputs, rendered by nbconvert."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memkit.notebook.report.offline import offline

# Widgets and bare JavaScript need scripts from elsewhere (their manager, jQuery): shown by what else they gave.
_NEEDS_SCRIPTS = ("application/vnd.jupyter.widget-view+json", "application/javascript", "text/vnd.mermaid")
_SHOWN = ["text/html", "text/markdown", "image/svg+xml", "text/latex", "image/png", "image/jpeg", "text/plain"]


@dataclass(frozen=True, slots=True)
class Body:
    """HTML of all cells, and the addresses of what is not in it because it would be fetched from elsewhere."""

    html: str
    taken_out: tuple[str, ...]


def anchor(index: int) -> str:
    """The id of a cell of the page, by its place in the notebook."""
    return f"cell-id=memkit-{index}"  # nbconvert's template puts the first part before each id


def body(notebook: Any, folder: Path) -> Body:
    """Render a notebook; pictures that its text cells show from `folder` are put in."""
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    shown = copy.deepcopy(notebook)
    shown.nbformat_minor = max(5, shown.nbformat_minor)  # before that cells have no ids, and so no anchors
    shown.metadata.pop("widgets", None)
    for index, cell in enumerate(shown.cells):
        cell.id = f"memkit-{index}"
        for output in cell.get("outputs", ()):
            for kind in _NEEDS_SCRIPTS:
                if output.get("data", {}).pop(kind, None) is not None and not output.data:
                    output.data["text/plain"] = f"({kind} is shown only in Jupyter)"
    config = Config({"NbConvertBase": {"display_data_priority": _SHOWN}})
    exporter = HTMLExporter(config=config, template_name="basic", embed_images=True, exclude_anchor_links=True)
    rendered, _ = exporter.from_notebook_node(shown, resources={"metadata": {"path": str(folder)}})
    clean, taken = offline(rendered)
    return Body(clean, tuple(dict.fromkeys(taken)))


def highlighting() -> str:
    """CSS of highlighted code, for light and dark pages."""
    from pygments.formatters import HtmlFormatter

    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}"
