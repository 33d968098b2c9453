"""What operators ask of a node: is it well, is it ready, why did a join fail, and would it please make room.

| request | token | answer |
|---|---|---|
| `GET /healthz` | - | 200: the event loop turns |
| `GET /readyz` | - | 200, or 503 while the node drains |
| `GET /debug/joins?room=&identity=&limit=` | `roomList` | the latest attempts to join, as JSON |
| `GET /debug/rooms` | `roomList` | the actors that run, as JSON |
| `GET /debug/addresses` | `roomList` | which addresses clients are told and which not, and why, as JSON |
| `GET /debug/loop` | `roomList` | the longest turns of the event loop, second by second, and the collector's, as JSON |
| `POST /admin/drain?deadline=` | `roomCreate` | no new rooms; after `deadline` seconds everyone is told to leave |
| `POST /admin/undrain` | `roomCreate` | as before |

In development mode the `/debug` paths need no token.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict

from actors.front.intake import claims_of, refusal
from actors.front.types import Request, Response
from actors.kernel import ActorInfo
from actors.services import Services
from lkactor.auth import AuthError, VideoGrant

MAX_DEADLINE = 7 * 24 * 3600
DEFAULT_DEADLINE = 300
MAX_LISTED = 1000


class AdminFront:
    """Handlers for the paths above. `drain(seconds)` and `undrain()` are the front actor's."""

    def __init__(
        self,
        services: Services,
        tree: Callable[[], list[ActorInfo]],
        drain: Callable[[float], None],
        undrain: Callable[[], None],
    ) -> None:
        self._services = services
        self._tree = tree
        self._drain = drain
        self._undrain = undrain

    def handle(self, request: Request) -> Response | None:
        """None: none of these paths."""
        match request.method, request.path:
            case "GET" | "HEAD", "/healthz":
                return Response(200, b"ok")
            case "GET" | "HEAD", "/readyz":
                return Response(503, b"draining") if self._services.draining.on else Response(200, b"ready")
            case "GET", "/debug/joins":
                return self._allowed(request, "room_list", public=True) or self._joins(request)
            case "GET", "/debug/rooms":
                return self._allowed(request, "room_list", public=True) or self._rooms()
            case "GET", "/debug/addresses":
                return self._allowed(request, "room_list", public=True) or self._addresses()
            case "GET", "/debug/loop":
                return self._allowed(request, "room_list", public=True) or _json(self._services.loop.as_dict())
            case "POST", "/admin/drain":
                return self._allowed(request, "room_create") or self._start_drain(request)
            case "POST", "/admin/undrain":
                return self._allowed(request, "room_create") or self._stop_drain()
            case _:
                return None

    def _allowed(self, request: Request, grant: str, *, public: bool = False) -> Response | None:
        """The refusal, or None."""
        if public and self._services.config.development:
            return None
        try:
            claims = claims_of(request, self._services)
        except AuthError as error:
            return Response(401, refusal(request, error).encode())
        if claims is None:
            return Response(401, b"a token is needed")
        video = claims.video or VideoGrant()
        return None if getattr(video, grant) else Response(403, f"the token does not grant {grant}".encode())

    def _joins(self, request: Request) -> Response:
        text = request.query.get("limit", "")
        limit = min(int(text), MAX_LISTED) if text.isascii() and text.isdigit() and len(text) < 9 else 100
        found = self._services.joins.of(room=request.query.get("room", ""), identity=request.query.get("identity", ""))
        return _json({"joins": [verdict.as_dict() for verdict in found[-limit:]] if limit else []})

    def _rooms(self) -> Response:
        actors = [
            {"path": info.path, "type": info.type, "state": info.state, "mailbox": info.depth} for info in self._tree()
        ]
        plane = self._services.ports.plane
        return _json({"forwarding_plane": plane.name, "actors": actors})

    def _addresses(self) -> Response:
        plan, candidates = self._services.addresses, self._services.candidates
        ports = {
            transport: sorted({c.port for c in candidates if c.transport == transport}) for transport in ("udp", "tcp")
        }
        announced, dropped = ([asdict(entry) for entry in entries] for entries in (plan.announced, plan.dropped))
        return _json({"announced": announced, "dropped": dropped, "ports": ports})

    def _start_drain(self, request: Request) -> Response:
        text = request.query.get("deadline", str(DEFAULT_DEADLINE))
        if not (text.isascii() and text.isdigit() and int(text[:9]) <= MAX_DEADLINE):
            return Response(400, f"deadline is seconds, at most {MAX_DEADLINE}".encode())
        self._drain(float(int(text)))
        return _json({"draining": True, "deadline": int(text)})

    def _stop_drain(self) -> Response:
        self._undrain()
        return _json({"draining": False})


def _json(value: object) -> Response:
    return Response(200, json.dumps(value).encode(), "application/json")
