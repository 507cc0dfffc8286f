"""The page's server in a thread of a test, and what a page asks of it."""

from __future__ import annotations

import base64
import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from kcompiler.runtime.explainer import Explainer
from kcompiler.serving.app import Service
from kcompiler.serving.server import open_port, server_of

SECONDS = 120


@dataclass(eq=False)
class Page:
    """A server of the page, and questions with its token.

    Attributes:
        root: address without the token.
        token: of the page.
        service: what answers.
        client: asks as a page does.
    """

    root: str
    token: str
    service: Service
    client: httpx.Client

    @property
    def address(self) -> str:
        return f"{self.root}/#{self.token}"

    def give(self, path: Path) -> str:
        """Uploads a picture, and returns its name on the server."""
        kind = {"Content-Type": "application/octet-stream" if path.suffix == ".npy" else "image/png"}
        answer = self.client.post("/api/pictures", params={"name": path.name}, content=path.read_bytes(), headers=kind)
        assert answer.status_code == 201, answer.text
        return answer.json()["picture"]

    def states(self, **asked: object) -> Iterator[dict]:
        """The states of a map, as they come."""
        with self.client.stream("POST", "/api/maps", json=asked) as answer:
            assert answer.status_code == 200, answer.read()
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))


def scores_of(state: dict) -> np.ndarray:
    """The scores of a state, float32 [rows, cols]."""
    return np.frombuffer(base64.b64decode(state["scores"]), "<f4").reshape(len(state["ys"]), len(state["xs"]))


@contextmanager
def page_of(explainer: Explainer, folder: Path) -> Iterator[Page]:
    """Serves the page of a bundle until the context ends."""
    token = secrets.token_urlsafe(24)
    with open_port(0) as opened:
        service = Service(explainer, folder)
        server = server_of(service, opened, token)
        opened.listen()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
        thread.start()
        root = f"http://127.0.0.1:{opened.getsockname()[1]}"
        with httpx.Client(base_url=root, headers={"Authorization": f"Bearer {token}"}, timeout=SECONDS) as client:
            yield Page(root, token, service, client)
        service.desk.close()
        server.should_exit = True
        thread.join()
        service.desk.wait()
