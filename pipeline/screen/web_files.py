"""The page's own files, from the package. Nothing else can be asked for."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

from .. import __name__ as _pipeline

PAGE, LOGIN = "page.html", "login.html"
KINDS = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}


@lru_cache(maxsize=1)
def web_files() -> dict[str, bytes]:
    """Name -> content of every file in pipeline/web."""
    return {
        entry.name: entry.read_bytes()
        for entry in (resources.files(_pipeline) / "web").iterdir()
        if entry.is_file() and entry.name.rpartition(".")[2] in KINDS
    }
