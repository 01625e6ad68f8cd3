"""Lets the site follow links that lead out of docs/: those files become pages of it.

In the repository `docs/search.md` links to `../benchmarks/ranks.py`. The site has no such file, so
every file that a page links to comes along below `repository/`, programs as pages that show them.
A link that leads nowhere stays as it is, and the strict build fails.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
FOLDER = "repository"
LINK = re.compile(r"(?<=\]\()(?![a-z]+:)([^)#\s]+)(#[^)\s]*)?(?=\))")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".sh": "bash", ".toml": "toml"}

# Page of the site to the file of the repository that it is made of.
_origins: dict[str, str] = {}


def on_files(files: Any, config: Any) -> Any:
    """Adds every file that a page links to, and what those link to."""
    _origins.clear()
    waiting = [file for file in files if file.is_documentation_page()]
    for file in waiting:
        _origins[file.src_uri] = f"docs/{file.src_uri}"
    while waiting:
        page = waiting.pop()
        for link in LINK.finditer(page.content_string):
            origin = _target(_origins[page.src_uri], link[1])
            if origin is None or origin.startswith("docs/"):
                continue
            place = _place(origin)
            if place not in _origins:
                _origins[place] = origin
                added = File.generated(config, place, content=_content(origin))
                files.append(added)
                waiting.append(added)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Points links to where their targets are on the site."""
    here = page.file.src_uri

    def moved(link: re.Match[str]) -> str:
        origin = _target(_origins[here], link[1])
        if origin is None:
            return link[0]
        place = origin.removeprefix("docs/") if origin.startswith("docs/") else _place(origin)
        return posixpath.relpath(place, posixpath.dirname(here) or ".") + (link[2] or "")

    return LINK.sub(moved, markdown)


def _target(origin: str, link: str) -> str | None:
    """The file of the repository that a link means; of a folder, what it says of itself."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), link))
    if path.startswith(".."):
        return None
    if (ROOT / path).is_dir():
        path = posixpath.join(path, "README.md")
    return path if (ROOT / path).is_file() else None


def _place(origin: str) -> str:
    return f"{FOLDER}/{origin}" if origin.endswith(".md") else f"{FOLDER}/{origin}.md"


def _content(origin: str) -> str:
    text = (ROOT / origin).read_text(encoding="utf-8")
    if origin.endswith(".md"):
        return text
    fence = "`" * 6
    language = LANGUAGES.get(Path(origin).suffix, "text")
    hidden = "---\nsearch: {exclude: true}\n---\n"
    return f"{hidden}# {origin}\n\n{fence}{language}\n{text.rstrip()}\n{fence}\n"
