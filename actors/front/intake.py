"""Who is asking: the token of a request, before any handler sees it (livekit-surface 1.2)."""

from __future__ import annotations

from actors.front.types import Request
from actors.services import Services
from lkactor.auth import AuthError, Claims, token_from_request, unverified_names


def claims_of(request: Request, services: Services) -> Claims | None:
    """None when there is no token: each handler refuses by itself. Raises AuthError with the 401 text."""
    token = token_of(request)
    return services.tokens.verify(token, services.config.keys, services.unix()) if token is not None else None


def token_of(request: Request) -> str | None:
    """Raises AuthError for an Authorization header of another scheme."""
    return token_from_request(request.headers.get("authorization"), request.query.get("access_token"))


def claimed_by(request: Request) -> tuple[str, str]:
    """(room, identity) that the token names, true or not: to find a refused attempt again. Nothing else may use it."""
    try:
        token = token_of(request)
    except AuthError:
        return "", ""
    return unverified_names(token or "")


def refusal(request: Request, error: AuthError) -> str:
    """The 401 text for the sender of the token. Not for a log: it may repeat the token."""
    return error.body(token_of(request) or "") if error.echoes_token else str(error)
