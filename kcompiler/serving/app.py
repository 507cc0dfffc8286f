"""The server's addresses: the page's files, and what the page asks for under ``/api/``."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from kcompiler.commands.options import of_patch
from kcompiler.runtime.errors import KCompilerError
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.request import Request as MapRequest
from kcompiler.serving import pictures
from kcompiler.serving.about import about
from kcompiler.serving.asked import AskedFiles, AskedMap, AskedOutputs, Covering, Patch
from kcompiler.serving.bodies import asked_of, body_of, said
from kcompiler.serving.covered import covering_picture, outputs_at
from kcompiler.serving.desk import MOST_JOBS, Desk
from kcompiler.serving.events import event, map_event
from kcompiler.serving.files import page_files
from kcompiler.serving.guard import Guard
from kcompiler.serving.patches import Patches
from kcompiler.serving.pictures import Kept, Subject
from kcompiler.serving.refining import refined
from kcompiler.serving.refused import Refused
from kcompiler.serving.saving import Made, archive

PICTURES = ("image/", "application/dicom", "application/octet-stream")
"""Content types of pictures; the last is that of arrays (.npy), and of files whose kind the browser does not know."""
MAPS = 32
"""Maps kept to be saved."""


class Service:
    """What the addresses do, with the same explainers for all pages."""

    def __init__(self, explainer: Explainer, folder: Path) -> None:
        """``explainer`` is that of the patch that pages begin with; ``folder`` takes the pictures while they are looked at."""
        self.patches, self.folder, self.desk = Patches(explainer), folder, Desk()
        self.pictures: Kept[Subject] = Kept(pictures.KEPT, "picture")
        self.maps: Kept[Made] = Kept(MAPS, "map")
        self.files = page_files()

    def routes(self) -> list[Route]:
        return [
            *(Route(path, self.file) for path in self.files),
            Route("/api/model", self.model),
            Route("/api/pictures", self.add_picture, methods=["POST"]),
            Route("/api/pictures/{name}/{kind}.png", self.picture),
            Route("/api/fill", self.fill, methods=["POST"]),
            Route("/api/outputs", self.outputs, methods=["POST"]),
            Route("/api/maps", self.make_map, methods=["POST"]),
            Route("/api/save", self.save, methods=["POST"]),
        ]

    async def explainer(self, patch: Patch | None) -> Explainer:
        return await self.desk.do(partial(self.patches.explainer, patch))

    async def file(self, request: Request) -> Response:
        found = self.files[request.url.path]
        return Response(found.content, media_type=found.kind)

    async def model(self, request: Request) -> Response:
        """The bundle, for the patch HEIGHTxWIDTH, or for the first."""
        return JSONResponse(about(await self.explainer(of_patch(request.query_params.get("patch")))))

    async def add_picture(self, request: Request) -> Response:
        content = await body_of(request, pictures.MOST_BYTES, PICTURES)
        name = request.query_params.get("name", "picture")
        subject = await self.desk.do(partial(pictures.read_subject, self.patches.first, self.folder, name, content))
        key, gone = self.pictures.add(subject)
        pictures.forget(gone)
        return JSONResponse(
            {"picture": key, "file": subject.path.name, "size": subject.view.picture, "box": subject.box}, status_code=201
        )

    async def picture(self, request: Request) -> Response:
        """The whole picture ("whole"), or what the model sees ("model"), as PNG."""
        subject, kind = self.pictures.get(request.path_params["name"]), request.path_params["kind"]
        if kind not in ("whole", "model"):
            raise HTTPException(404)
        drawn = subject.shown if kind == "whole" else pictures.png(Image.fromarray(subject.pixels))
        return Response(drawn, media_type="image/png")

    async def fill(self, request: Request) -> Response:
        """The picture that shows through the patch, as PNG; no content where each position has a patch of its own."""
        asked = await asked_of(request, Covering)
        subject, explainer = self.pictures.get(asked.picture), await self.explainer(asked.patch)
        fill = asked.resolved_fill(explainer.manifest)
        pixels = await self.desk.do(partial(covering_picture, explainer, subject, fill))
        if pixels is None:
            return Response(status_code=204)
        return Response(pictures.png(Image.fromarray(pixels)), media_type="image/png")

    async def outputs(self, request: Request) -> Response:
        asked = await asked_of(request, AskedOutputs)
        subject, explainer = self.pictures.get(asked.picture), await self.explainer(asked.patch)
        fill = asked.resolved_fill(explainer.manifest)
        call = partial(outputs_at, explainer, subject, fill, asked.score, (asked.y, asked.x))
        return JSONResponse(await self.desk.do(call))

    async def make_map(self, request: Request) -> Response:
        """A map that gets better, as a stream of events; it ends where the page goes away."""
        asked = await asked_of(request, AskedMap)
        subject, explainer = self.pictures.get(asked.picture), await self.explainer(asked.patch)
        settings = asked.request(explainer.manifest)  # refuses what does not fit before the stream begins
        if self.desk.jobs >= MOST_JOBS:
            raise Refused(429, f"{self.desk.jobs} maps are being made already; cancel one, or wait.")
        return StreamingResponse(self._events(explainer, settings, subject), media_type="text/event-stream")

    async def _events(self, explainer: Explainer, settings: MapRequest, subject: Subject) -> AsyncIterator[str]:
        name = uuid.uuid4().hex
        states = self.desk.each(partial(refined, explainer, subject.tensor, settings))
        try:
            async for state in states:
                if state is not None:
                    self.maps.add(Made(explainer, state.heat_map, subject, settings), name)
                    yield map_event(state, name)
        except (KCompilerError, Refused) as error:
            yield event("error", {"error": self._said(error)})
        finally:
            await states.aclose()  # its job ends here, not when it is garbage-collected

    async def save(self, request: Request) -> Response:
        asked = await asked_of(request, AskedFiles)
        made = [self.maps.get(name) for name in asked.maps]
        packed = await self.desk.do(partial(archive, made))
        return Response(packed, media_type="application/zip")

    def _said(self, error: Exception) -> str:
        if isinstance(error, Refused):
            return error.message
        assert isinstance(error, KCompilerError)
        return said(error, self.folder, self.patches.first.folder)

    async def refused(self, request: Request, error: Exception) -> Response:
        """The answer to an error that says what to do."""
        status = error.status if isinstance(error, Refused) else 400
        return JSONResponse({"error": self._said(error)}, status)


async def _unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": "There is nothing at this address."}, error.status_code)


async def _failed(request: Request, error: Exception) -> Response:
    """An error of our own: the terminal has its traceback, the page does not."""
    return JSONResponse({"error": "The server failed at this; its terminal says why."}, 500)


def make_app(service: Service, token: str, port: int) -> ASGIApp:
    """The application that answers pages with ``token`` at ``port`` of this machine."""
    app = Starlette(
        routes=service.routes(),
        exception_handlers={
            Refused: service.refused, KCompilerError: service.refused, HTTPException: _unknown, Exception: _failed,
        },
    )  # fmt: skip
    app.router.redirect_slashes = False
    return Guard(app, token, port)
