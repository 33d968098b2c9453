"""The try page: static files of the package, and tokens for it; in dev mode only, where the keys are public."""

from __future__ import annotations

import json
from importlib.resources import files

from actors.front.types import Request, Response
from actors.services import Services
from lkactor.auth import issue_token

FILES = {
    "/try": ("index.html", "text/html; charset=utf-8"),
    "/try/try.js": ("try.js", "text/javascript; charset=utf-8"),
    "/try/try.css": ("try.css", "text/css; charset=utf-8"),
}
POLICY = "default-src 'self'; connect-src 'self' ws: wss:; media-src 'self' blob: mediastream:"
MAX_NAME = 64
TOKEN_LIFE = 3600.0


def try_page(request: Request, services: Services) -> Response | None:
    """None: not a path of the page."""
    if request.path == "/try/token":
        return _token(request, services)
    entry = FILES.get(request.path.rstrip("/"))
    if entry is None:
        return None
    name, kind = entry
    body = files("lkactor").joinpath("web", name).read_bytes()
    return Response(200, body, kind, (("content-security-policy", POLICY), ("cache-control", "no-store")))


def _token(request: Request, services: Services) -> Response:
    room = request.query.get("room", "demo")[:MAX_NAME]
    identity = request.query.get("identity", "someone")[:MAX_NAME]
    key, secret = next(iter(services.config.keys.items()))
    video = {"room": room, "room_join": True, "can_update_own_metadata": True}
    token = issue_token(key, secret, identity=identity, video=video, ttl=TOKEN_LIFE, now_unix=services.unix())
    host = request.headers.get("host", "")
    body = json.dumps({"token": token, "url": f"ws://{host}"}).encode()
    return Response(200, body, "application/json", (("cache-control", "no-store"),))
