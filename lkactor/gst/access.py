"""Who may be bridged into a LiveKit room: GStreamer's protocol knows no passwords, so a token comes beside its words.

A peer shows its token in the address of the WebSocket (`ws://host:8443/?access_token=<token>`), in an Authorization
header, or for one call in the name it calls: `SESSION lkactor:<room>?access_token=<token>`. GStreamer's own programs
can do the first and the last unchanged. The token is one of LiveKit's: it must allow to join that very room. Its
identity and permissions hold; without an identity the peer is `gst-<its name>`.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

from lkactor.auth import MAX_TOKEN, AuthError, Claims, token_from_request, verify
from lkactor.counters import Counters

QUERY = "?access_token="


def token_of(target: str, headers: Mapping[str, str]) -> str:
    """From a request's target and headers (names in lower case); "" without one that could be a token."""
    try:
        pairs = dict(parse_qsl(urlsplit(target).query, max_num_fields=32))
        token = token_from_request(headers.get("authorization"), pairs.get("access_token"))
    except (AuthError, ValueError):
        return ""
    return token if token is not None and len(token) <= MAX_TOKEN else ""


def split_call(name: str) -> tuple[str, str]:
    """The name that is called, and the token behind it, "" without one."""
    called, _, token = name.partition(QUERY)
    return called, token


def claims_for(
    token: str, room: str, keys: Mapping[str, str], now_unix: float, counters: Counters | None = None
) -> Claims | None:
    """None: this token does not let anyone into this room. Why is counted, and not told."""
    tally = counters if counters is not None else Counters()
    if not token:
        tally.count("gst.no_token")
        return None
    try:
        claims = verify(token, keys, now_unix)
    except AuthError:
        tally.count("gst.bad_token")
        return None
    if claims.video is None or not claims.video.room_join or claims.video.room != room:
        tally.count("gst.no_grant")
        return None
    return claims
