"""``kcompiler serve``: a page on this machine that explains pictures with a compiled bundle."""

from __future__ import annotations

import webbrowser
from typing import Annotated

import typer

import kcompiler
from kcompiler.commands import options
from kcompiler.runtime.errors import UsageError

PORT = 8765


def serve_page(
    bundle: options.BundlePath,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of this machine; 0 takes a free one.")] = PORT,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    patch: options.OfPatch = None,
    provider: options.Provider = None,
    threads: options.Threads = None,
) -> None:
    """Serve a page, to this machine alone, that explains pictures while one watches."""
    try:
        from kcompiler.serving.server import serve
    except ModuleNotFoundError as error:
        raise UsageError(f"the page needs {error.name}: install it with pip install 'kcompiler[serve]'") from error

    def told(address: str) -> None:
        typer.echo(f"{bundle}: {address}\nThe address holds the page's key: who has it may use the page. Ctrl-C ends it.")
        if open_browser:
            webbrowser.open(address)

    explainer = kcompiler.load(bundle, providers=provider, threads=threads, patch=options.of_patch(patch))
    serve(explainer, port, told)
