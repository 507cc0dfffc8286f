"""Folders served over HTTP from this machine, for tests of pages."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ISOLATION = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
"""Headers with which browsers allow threads."""


@dataclass(eq=False)
class Site:
    """A folder that is being served.

    Attributes:
        url: of the folder, with a slash at its end.
        asked: paths that were asked for, in order.
    """

    url: str = ""
    asked: list[str] = field(default_factory=list)


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *arguments: object, site: Site, headers: Mapping[str, str], directory: str) -> None:
        self.site, self.more = site, headers
        super().__init__(*arguments, directory=directory)

    def end_headers(self) -> None:
        for name, value in self.more.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        self.site.asked.append(self.path)


@contextmanager
def served(folder: Path, headers: Mapping[str, str]) -> Iterator[Site]:
    """Serves ``folder`` at a free port of this machine, with ``headers`` beside the usual ones, until the context ends."""
    site = Site()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, site=site, headers=headers, directory=str(folder))) as server:
        site.url = f"http://127.0.0.1:{server.server_port}/"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()
