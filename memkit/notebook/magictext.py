"""Names in the text that IPython's magics and shell lines are given.

IPython turns `%timeit df.sum()` into `get_ipython().run_line_magic('timeit', 'df.sum()')`, a cell magic into
`run_cell_magic(name, line, body)`, `!ls` into `system('ls')` and `x = !ls` into `getoutput('ls')`.
"""

from __future__ import annotations

import ast
import re
import string
import sys
from collections.abc import Iterator, Set
from typing import Any

_RUN = frozenset({"run_line_magic", "run_cell_magic"})
_SHELL = frozenset({"system", "getoutput"})
_SHELL_MAGICS = frozenset({"sx", "system", "!", "!!"})
# Magics whose body is written somewhere or run by another program, in which the notebook's names mean nothing.
_FOREIGN_BODIES = frozenset(
    {
        *("html", "HTML", "js", "javascript", "latex", "markdown", "svg", "SVG", "writefile", "file"),
        *("bash", "sh", "script", "perl", "ruby", "python", "python2", "python3", "pypy", "cmd"),
    }
)
_IDENTIFIER = re.compile(r"(?<![\w.])[^\W\d]\w*")
_DOLLAR = re.compile(r"\$([^\W\d]\w*)")


# What a syntax tree's fields hold that has no call inside.
_LEAVES = frozenset(
    {
        *(str, int, float, complex, bool, bytes, type(None), type(...), tuple, frozenset),
        *(ast.Name, ast.Constant, ast.Load, ast.Store, ast.Del, ast.alias, ast.Pass, ast.Global, ast.Nonlocal),
    }
)


def may_call(names: Set[str], loads: Set[str]) -> bool:
    """Whether code with these names (attributes included) and global loads can hold such a call."""
    return not _RUN.isdisjoint(names) or ("get_ipython" in loads and not _SHELL.isdisjoint(names))


def _method(call: ast.Call) -> str | None:
    if type(call.func) is not ast.Attribute:
        return None
    method, owner = call.func.attr, call.func.value
    from_ipython = type(owner) is ast.Call and type(owner.func) is ast.Name and owner.func.id == "get_ipython"
    return method if method in _RUN or (from_ipython and method in _SHELL) else None  # os.system is not ours


def calls(tree: ast.AST) -> Iterator[tuple[str, list[str]]]:
    """The calls of IPython's own methods in a transformed cell: method and its text arguments."""
    waiting: list[Any] = [tree]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, ast.AST):
            continue
        if type(node) is ast.Call and (method := _method(node)):
            yield method, [a.value for a in node.args if type(a) is ast.Constant and type(a.value) is str]
        # Not by `__dict__`: libraries that format tracebacks hang a `parent` on nodes, and `ast.Load()` is one object
        # that all trees share, so that its `parent` leads from here into other trees and round in circles.
        for name in node._fields:
            field: Any = getattr(node, name, None)
            kind = type(field)
            if kind is list:
                waiting += [item for item in field if type(item) not in _LEAVES]
            elif kind not in _LEAVES:
                waiting.append(field)


def pieces(method: str, texts: list[str]) -> Iterator[ast.AST | str]:
    """What such a call mentions: syntax trees where the text is Python, otherwise single identifiers."""
    if method in _SHELL:
        yield from _shell(" ".join(texts))
        return
    name, line, body = (*texts, "", "", "")[:3]
    if name in _SHELL_MAGICS or name in _FOREIGN_BODIES:
        yield from _shell(line)
    elif name != "memkit":  # memkit's own magics give names as text, which is not a use of the value
        yield from _line(line)
    if body and name in _SHELL_MAGICS:
        yield from _shell(body)
    elif body and name not in _FOREIGN_BODIES:
        yield from _body(body)


def identifiers(text: str) -> Iterator[str]:
    """Words of a text that could be names of the notebook: not what follows a dot."""
    return (match.group() for match in _IDENTIFIER.finditer(text))


def _parsed(text: str) -> ast.AST | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _line(line: str) -> Iterator[ast.AST | str]:
    """Options in front (`-n 10 -o`) are taken off until the rest is Python; what was taken off counts by its words."""
    rest, dropped = line.strip(), ""
    while rest:
        tree = None if rest.startswith("-") else _parsed(rest)
        if tree is not None:
            yield tree
            break
        if not (rest.startswith("-") or dropped):
            dropped, rest = line, ""
            break
        word, _, rest = rest.partition(" ")
        dropped, rest = f"{dropped} {word}", rest.strip()
    yield from identifiers(re.sub(r"(?<!\S)--?\w+", " ", dropped))


def _body(body: str) -> Iterator[ast.AST | str]:
    tree = _parsed(body) or _parsed(_transformed(body))
    if tree is None:
        yield from identifiers(body)
    else:
        yield tree


def _transformed(body: str) -> str:
    """A body with its own magics turned into calls; as it was where IPython is not there or cannot."""
    transformer = sys.modules.get("IPython.core.inputtransformer2")
    if transformer is None:
        return body
    try:
        text: str = transformer.TransformerManager().transform_cell(body)
    except SyntaxError:
        return body
    return text


def _shell(command: str) -> Iterator[ast.AST | str]:
    """What IPython expands in a shell line: `{expression}` and `$name`."""
    for match in _DOLLAR.finditer(command):
        yield match.group(1)
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(command) if field]
    except ValueError:  # unbalanced braces: IPython then expands nothing
        return
    for field in fields:
        tree = _parsed(field)
        if tree is not None:
            yield tree
