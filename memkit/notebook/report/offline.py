"""Takes out of HTML what a browser would fetch from elsewhere, so that a page is whole and private without a network.

Links that a reader may follow stay. What is taken out of a tag stays there as `data-remote`, so nothing is lost.
"""

from __future__ import annotations

import html
import re

_ATTRIBUTES = r"(?:\"[^\"]*\"|'[^']*'|[^\"'>])*"
_FETCHING = re.compile(
    rf"<(script|link|img|image|use|iframe|embed|object|video|audio|source|track|input|base|frame)\b({_ATTRIBUTES})>",
    re.IGNORECASE,
)
_REMOTE = r"(?:https?:)?//"
_ADDRESS = re.compile(
    rf"\b(src|href|xlink:href|srcset|data|poster)\s*=\s*(\"[^\"]*{_REMOTE}[^\"]*\"|'[^']*{_REMOTE}[^']*'|{_REMOTE}[^\s>]+)",
    re.IGNORECASE,
)
_IMPORT = re.compile(r"@import\s+(?:url\(\s*)?[\"']?(?:https?:)?//[^;\"')]*[\"']?\s*\)?[^;]*;?", re.IGNORECASE)
_URL = re.compile(r"url\(\s*[\"']?(?:https?:)?//[^)]*\)", re.IGNORECASE)
_STYLED = re.compile(r"(<style\b[^>]*>)(.*?)(</style>)|(\bstyle\s*=\s*)(\"[^\"]*\"|'[^']*')", re.IGNORECASE | re.DOTALL)


def offline(text: str) -> tuple[str, list[str]]:
    """The HTML without anything that is fetched from elsewhere, and the addresses that were taken out."""
    taken: list[str] = []
    text = _FETCHING.sub(lambda match: _without_address(match, taken), text)
    return _STYLED.sub(lambda match: _without_urls(match, taken), text), taken


def _without_address(match: re.Match[str], taken: list[str]) -> str:
    found = [_unquoted(address[2]) for address in _ADDRESS.finditer(match[2]) if _is_remote(address)]
    if not found:
        return match[0]
    taken.extend(found)
    if match[1].lower() == "img":
        shown = html.escape(html.unescape(found[0]))
        return f'<a class="memkit-remote" href="{shown}">image that is not in this file: {shown}</a>'
    attributes = _ADDRESS.sub(lambda m: f"data-remote={m[2]}" if _is_remote(m) else m[0], match[2])
    return f"<{match[1]}{attributes}>"


def _is_remote(address: re.Match[str]) -> bool:
    """Not so for `data:` addresses, which may well have two slashes inside."""
    value = _unquoted(address[2]).lower()
    if address[1].lower() == "srcset":
        return re.search(rf"(?:^|,|\s){_REMOTE}", value) is not None
    return re.match(_REMOTE, value) is not None


def _unquoted(value: str) -> str:
    return value.strip("\"'").strip()


def _without_urls(match: re.Match[str], taken: list[str]) -> str:
    def cut(css: str) -> str:
        taken.extend(found[0] for pattern in (_IMPORT, _URL) for found in pattern.finditer(css))
        return _URL.sub("none", _IMPORT.sub("", css))

    if match[1]:
        return f"{match[1]}{cut(match[2])}{match[3]}"
    return f"{match[4]}{cut(match[5])}"
