"""Cross-origin answers: any origin, as the reference. Browsers call from anywhere; the token is what counts."""

from __future__ import annotations

from actors.front.types import Request, Response

METHODS = ("OPTIONS", "HEAD", "GET", "POST", "PATCH", "DELETE")
MAX_AGE = "86400"


def preflight(request: Request) -> Response | None:
    """The answer to a browser that asks before it calls; None for any other request. No handler sees it."""
    method = request.headers.get("access-control-request-method")
    if request.method != "OPTIONS" or not method:
        return None
    vary = ("vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
    origin = request.headers.get("origin")
    if not origin or method not in METHODS:
        return Response(204, headers=(vary,))
    headers = [vary, ("access-control-allow-origin", origin), ("access-control-allow-methods", method)]
    asked = request.headers.get("access-control-request-headers")
    if asked:
        headers.append(("access-control-allow-headers", asked))
    return Response(204, headers=(*headers, ("access-control-max-age", MAX_AGE)))


def with_cors(request: Request, response: Response) -> Response:
    """The same answer, readable by the page that asked. Refusals most of all (livekit-clients section 1)."""
    present = {name.lower() for name, _ in response.headers}
    if "vary" in present:
        return response
    headers = [("vary", "Origin")]
    origin = request.headers.get("origin")
    if origin and request.method in METHODS:
        headers += [("access-control-allow-origin", origin), ("access-control-expose-headers", "*")]
    fresh = (pair for pair in headers if pair[0] not in present)
    return Response(response.status, response.body, response.content_type, (*response.headers, *fresh))
