"""Bodies of requests, read within bounds, and answers to what fails."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from starlette.requests import Request

from kcompiler.runtime.errors import KCompilerError
from kcompiler.serving.asked import Asked
from kcompiler.serving.refused import Refused

MOST_JSON = 1 << 16
Model = TypeVar("Model", bound=Asked)


async def body_of(request: Request, most: int, kinds: tuple[str, ...]) -> bytes:
    """The body, of one of the content types ``kinds`` ("image/" is all that begin so), at most ``most`` bytes.

    Raises:
        Refused: another type, or more bytes.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not any(kind == known or (known.endswith("/") and kind.startswith(known)) for known in kinds):
        raise Refused(415, f"Content of the type {kind or 'unknown'!r}, expected {', '.join(kinds)}.")
    limit = f"{most >> 20} MB" if most >= 1 << 20 else f"{most >> 10} kB"
    too_much = Refused(413, f"The request is larger than {limit}; give a smaller picture.")
    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal() or int(announced) > most:
        raise too_much
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise too_much
        parts.append(part)
    return b"".join(parts)


async def asked_of(request: Request, model: type[Model]) -> Model:
    """The JSON body of a request, as ``model``.

    Raises:
        Refused: not JSON, or not what is expected; the message names the fields.
    """
    content = await body_of(request, MOST_JSON, ("application/json",))
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'request'}: {one['msg']}" for one in error.errors())
        raise Refused(422, wrong) from error


def said(error: KCompilerError, pictures: Path, bundle: Path) -> str:
    """The message of an error for the page: without the folders of pictures, and of the bundle, on this machine."""
    message = re.sub(re.escape(str(pictures)) + r"[\\/]\w+[\\/]", "", str(error))
    return message.replace(str(bundle), "the bundle")
