"""The try page: static files of the package, served in dev mode only."""

from __future__ import annotations

from importlib.resources import files

from actors.front.types import Response

FILES = {
    "/try": ("index.html", "text/html; charset=utf-8"),
    "/try/try.js": ("try.js", "text/javascript; charset=utf-8"),
    "/try/try.css": ("try.css", "text/css; charset=utf-8"),
}
POLICY = "default-src 'self'; connect-src 'self' ws: wss:; media-src 'self' blob: mediastream:"


def try_page(path: str) -> Response | None:
    entry = FILES.get(path.rstrip("/"))
    if entry is None:
        return None
    name, kind = entry
    body = files("lkactor").joinpath("web", name).read_bytes()
    return Response(200, body, kind, (("content-security-policy", POLICY), ("cache-control", "no-store")))
