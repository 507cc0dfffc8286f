"""The server: a port of this machine alone, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import secrets
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType

import uvicorn

from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.scratch import inside, temporary
from kcompiler.serving.app import Service, make_app
from kcompiler.serving.desk import Desk

LOOPBACK = "127.0.0.1"
SECONDS_TO_END = 5
ENDING = (signal.SIGINT, signal.SIGTERM, *((signal.SIGHUP,) if sys.platform != "win32" else ()))
MOST_CONNECTIONS = 200


class Server(uvicorn.Server):
    """Ends the maps that are being made when it is told to stop, instead of waiting for them."""

    def __init__(self, config: uvicorn.Config, desk: Desk) -> None:
        super().__init__(config)
        self._desk = desk

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._desk.close()
        super().handle_exit(sig, frame)


def open_port(port: int) -> socket.socket:
    """A socket at ``port`` of this machine, which other machines cannot reach; 0 takes a free port.

    Raises:
        UsageError: the port is taken, or not allowed.
    """
    opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((LOOPBACK, port))
    except (OSError, OverflowError) as error:
        opened.close()
        raise UsageError(f"port {port} of {LOOPBACK} cannot be had ({error}); take another, or 0 for a free one") from error
    return opened


def server_of(service: Service, opened: socket.socket, token: str) -> Server:
    """A server of the page at a socket, which is not running yet."""
    app = make_app(service, token, opened.getsockname()[1])
    config = uvicorn.Config(
        app, log_level="error", access_log=False, server_header=False, lifespan="off", ws="none", proxy_headers=False,
        timeout_graceful_shutdown=SECONDS_TO_END, limit_concurrency=MOST_CONNECTIONS,
    )  # fmt: skip
    return Server(config, service.desk)


def serve(explainer: Explainer, port: int, told: Callable[[str], None]) -> None:
    """Serves the page until it is told to stop.

    Args:
        explainer: explains the pictures of all pages.
        port: of this machine; 0 takes a free one.
        told: called with the address, from when on it answers.
    """
    token = secrets.token_urlsafe(24)
    with open_port(port) as opened, temporary("serve") as scratch:
        service = Service(explainer, inside(scratch))
        server = server_of(service, opened, token)
        earlier = {name: signal.signal(name, server.handle_exit) for name in ENDING}
        opened.listen()  # a browser that comes from here on waits, instead of finding nobody
        told(f"http://{LOOPBACK}:{opened.getsockname()[1]}/#{token}")
        try:
            server.run(sockets=[opened])  # has handlers of its own, and raises again, at its end, the signals that ended it
        finally:
            for name, handler in earlier.items():
                signal.signal(name, handler)
            service.desk.wait()
