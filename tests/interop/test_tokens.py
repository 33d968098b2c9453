"""Refusals before the upgrade: the status, the text and the CORS header, which the clients show to their users.

The texts are those of livekit-server 1.13.5; SDKs and applications match on some of them.
"""

import time
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from support.interop import LIMIT, MARKS, Server, raw_token

pytestmark = MARKS

ORIGIN = "http://app.example"
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "bGthY3RvciBpbnRlcm9wIQ==",
}
PATHS = ["/rtc/validate", "/rtc/v1/validate", "/rtc", "/rtc/v1"]


@dataclass(frozen=True)
class Case:
    """Claims of a token (None: no token) and what it is answered. `text` may hold {token}."""

    status: int
    text: str
    claims: dict[str, Any] | None = field(default_factory=dict)
    literal: str | None = None


NO_GRANT = "no permissions to access the room"
INVALID = "invalid token: {token}, error: "
BAD_TOKENS = {
    "bad-signature": Case(401, INVALID + "token signature is invalid: signature is invalid", {"secret": "wrong"}),
    "expired": Case(401, INVALID + "token has invalid claims: token is expired", {"exp": 1_500_000_000}),
    "not-yet": Case(401, INVALID + "token has invalid claims: token is not valid yet", {"nbf": 4_000_000_000}),
    "unknown-key": Case(401, "invalid API key: stranger", {"key": "stranger"}),
    "garbage": Case(401, "invalid authorization token", literal="abc"),
    "no-token": Case(401, NO_GRANT, None),
    "no-grant": Case(401, NO_GRANT, {"video": None}),
}
BAD_GRANTS = {
    "no-join": Case(401, "permissions denied", {"video": {"room": "somewhere"}}),
    "no-room": Case(400, "no room name", {"video": {"roomJoin": True}}),
    "no-identity": Case(400, "identity cannot be empty", {"sub": None}),
}


def token_of(server: Server, case: Case) -> str | None:
    if case.literal is not None or case.claims is None:
        return case.literal
    good = {"sub": "someone", "video": {"roomJoin": True, "room": "somewhere"}}
    return raw_token(server, **{**good, **case.claims})


def get(server: Server, path: str, token: str | None, **headers: str) -> httpx.Response:
    query = {} if token is None else {"access_token": token}
    upgrade = {} if path.endswith("validate") else UPGRADE
    return httpx.get(
        server.http_url + path, params=query, headers={"Origin": ORIGIN, **upgrade, **headers}, timeout=LIMIT
    )


def assert_refused(answer: httpx.Response, case: Case, token: str | None) -> None:
    assert (answer.status_code, answer.text.strip()) == (case.status, case.text.format(token=token))
    assert answer.headers["content-type"].startswith("text/plain")
    # without it a browser cannot read the refusal and reports an unreachable server
    assert answer.headers["access-control-allow-origin"] in ("*", ORIGIN)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("case", BAD_TOKENS.values(), ids=BAD_TOKENS.keys())
def test_bad_token(lk_server: Server, path: str, case: Case) -> None:
    token = token_of(lk_server, case)
    assert_refused(get(lk_server, path, token), case, token)


@pytest.mark.parametrize("path", ["/rtc/validate", "/rtc"])
@pytest.mark.parametrize("case", BAD_GRANTS.values(), ids=BAD_GRANTS.keys())
def test_bad_grant(lk_server: Server, path: str, case: Case) -> None:
    token = token_of(lk_server, case)
    assert_refused(get(lk_server, path, token), case, token)


@pytest.mark.parametrize("path", ["/rtc/v1/validate", "/rtc/v1"])
@pytest.mark.parametrize("claims", [{}, *(case.claims for case in BAD_GRANTS.values())], ids=["good", *BAD_GRANTS])
def test_v1_wants_a_join_request_before_it_looks_at_grants(
    lk_server: Server, path: str, claims: dict[str, Any]
) -> None:
    case = Case(400, "join_request is required", claims)
    token = token_of(lk_server, case)
    assert_refused(get(lk_server, path, token), case, token)


def test_good_token_validates(lk_server: Server, lk_room: str) -> None:
    token = lk_server.token(identity="someone", room=lk_room)
    answer = get(lk_server, "/rtc/validate", token)
    assert (answer.status_code, answer.text.strip()) == (200, "success")
    assert answer.headers["access-control-allow-origin"] in ("*", ORIGIN)
    bearer = get(lk_server, "/rtc/validate", None, Authorization=f"Bearer {token}")
    assert (bearer.status_code, bearer.text.strip()) == (200, "success")


def test_other_authorization_scheme(lk_server: Server, lk_room: str) -> None:
    token = lk_server.token(identity="someone", room=lk_room)
    answer = get(lk_server, "/rtc/validate", None, Authorization=f"Basic {token}")
    case = Case(401, "invalid authorization header. Must start with Bearer")
    assert (answer.status_code, answer.text.strip()) == (case.status, case.text)


def test_preflight(lk_server: Server) -> None:
    """Applications that call the API or validate from a page with headers of their own ask first."""
    answer = httpx.options(
        lk_server.http_url + "/rtc/validate",
        headers={
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "authorization",
        },
        timeout=LIMIT,
    )
    assert answer.status_code in (200, 204)
    assert answer.headers["access-control-allow-origin"] in ("*", ORIGIN)
    assert answer.headers["access-control-allow-headers"].lower() in ("*", "authorization")


def test_health(lk_server: Server) -> None:
    answer = httpx.get(lk_server.http_url + "/", timeout=LIMIT)
    assert (answer.status_code, answer.text.strip()) == (200, "OK")


def test_a_token_just_expired_is_refused_at_once(lk_server: Server, lk_room: str) -> None:
    """A minute of leeway at most, as the client libraries have."""
    token = raw_token(lk_server, sub="a", video={"roomJoin": True, "room": lk_room}, exp=int(time.time()) - 61)
    assert get(lk_server, "/rtc/validate", token).status_code == 401
