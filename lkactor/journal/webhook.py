"""A webhook on the wire: body, signature, filter, and what an answer means (livekit-surface 6)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Collection

import jwt
from google.protobuf.json_format import MessageToJson
from livekit.protocol.webhook import WebhookEvent

from lkactor.journal.delivery import Outcome

CONTENT_TYPE = "application/webhook+json"
"""Not application/json, so that no framework parses the body before its signature is checked."""
USER_AGENT = "LiveKit"
TOKEN_LIFE = 300
BUSY = (408, 425, 429, 502, 503, 504)


def event_json(event: WebhookEvent) -> str:
    """protojson: camelCase, unset fields left out, 64-bit numbers as strings. One line."""
    return str(MessageToJson(event, indent=None))


def authorization(body: bytes, api_key: str, secret: str, now_unix: float) -> str:
    """The header's value: the bare token, no "Bearer"."""
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    now = int(now_unix)
    claims = {"iss": api_key, "iat": now, "nbf": now, "exp": now + TOKEN_LIFE, "sha256": digest}
    return jwt.encode(claims, secret, algorithm="HS256")


def event_filter(include: Collection[str], exclude: Collection[str]) -> Callable[[str], bool]:
    """Which events a receiver gets: the included ones if any are named, else all but the excluded."""
    if include:
        return frozenset(include).__contains__
    excluded = frozenset(exclude)
    return lambda event: event not in excluded


def outcome_of(status: int) -> Outcome:
    """Of an HTTP status."""
    if 200 <= status < 300:
        return Outcome.ACCEPTED
    if status in BUSY:
        return Outcome.UNREACHABLE
    if status >= 500 and status != 501:
        return Outcome.FAILED
    return Outcome.REFUSED
