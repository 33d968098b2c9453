"""Cross-origin answers: any origin, as the reference. Browsers call from anywhere; the token is what counts."""

from __future__ import annotations

from collections.abc import Mapping

from actors.front.types import Request, Response

METHODS = "OPTIONS, HEAD, GET, POST, PATCH, DELETE"


def with_cors(request: Request, response: Response) -> Response:
    """The same answer, readable by the page that asked. Refusals most of all (livekit-clients section 1)."""
    present = {name.lower() for name, _ in response.headers}
    origin = request.headers.get("origin")
    if origin is None or "access-control-allow-origin" in present:
        return response
    headers: Mapping[str, str] = {
        "access-control-allow-origin": origin,
        "vary": "Origin",
        "access-control-expose-headers": "*",
    }
    if request.method == "OPTIONS":
        asked = request.headers.get("access-control-request-headers", "*")
        preflight = {
            "access-control-allow-methods": METHODS,
            "access-control-allow-headers": asked,
            "access-control-max-age": "86400",
        }
        headers = {**headers, **preflight}
    return Response(response.status, response.body, response.content_type, (*response.headers, *headers.items()))
