"""Who may ask: pages that this server gave out, by their token; no other site, also not by another name of this machine."""

from __future__ import annotations

from secrets import compare_digest

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

API = "/api/"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """ASGI middleware: checks Host, Origin and token, and adds the headers that confine the page.

    - Host names this server. A site whose name was made to lead here (DNS rebinding) is known by its own name.
    - Origin, where the browser sends it, is this server's.
    - What is computed or read is given for the token alone, as ``Authorization: Bearer TOKEN``.
    """

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self.app, self._bearer = app, f"Bearer {token}".encode()
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        reason = self._refused(Headers(scope=scope), scope["path"]) if scope["type"] == "http" else (403, "HTTP only")

        async def confined(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if reason is None:
            await self.app(scope, receive, confined)
        else:
            await JSONResponse({"error": reason[1]}, reason[0])(scope, receive, confined)

    def _refused(self, headers: Headers, path: str) -> tuple[int, str] | None:
        """The status and the reason of a refusal; None if the request may pass."""
        if headers.getlist("host") not in [[host] for host in self._hosts]:
            return 403, "This server answers to its own address only."
        origins = headers.getlist("origin")
        if origins and origins not in [[f"http://{host}"] for host in self._hosts]:
            return 403, "Other sites may not ask this server."
        given = headers.get("authorization", "").encode("latin-1", "replace")
        if path.startswith(API) and not compare_digest(given, self._bearer):
            return 401, "The address lacks its token: open the address that 'kcompiler serve' printed."
        return None
