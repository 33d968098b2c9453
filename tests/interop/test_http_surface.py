"""Every request of support/http_rows.py is answered as LiveKit's own server answered it (http_surface.json).

Where ours differs on purpose, DIFFERENT says in which way and why, so nothing else can change unseen.
"""

from __future__ import annotations

import json
import math
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from support.http_rows import KEY, SECRET, UPGRADE, Row, ask, bearer, rows, token
from support.interop import MARKS

from lkactor.testing import LkServer

pytestmark = MARKS

REFERENCE: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "http_surface.json").read_text())
ROWS = rows()
TOO_LARGE = {"status": 413, "body": "request body too large"}
NO_PERSON = {"status": 404, "body": {"code": "not_found", "msg": "twirp error unknown: participant does not exist"}}
NO_ROOM = {"status": 404, "body": {"code": "not_found", "msg": "twirp error unknown: requested room does not exist"}}
NOBODY = {
    "status": 404,
    "body": {"code": "not_found", "msg": "twirp error unknown: RpcError 1401: Recipient not found"},
}
NO_SESSION = {"status": 404, "body": {"error": "no such session"}}
BARE_400, BARE_431 = {"body": ""}, {"body": ""}

DIFFERENT: dict[str, tuple[str, dict[str, Any]]] = {
    # limit.max_api_request_body_size (livekit-surface 1.1) is known to this build's configuration only.
    "length over the limit": ("refused before it is read", TOO_LARGE),
    "length over the limit at /": ("refused before it is read", TOO_LARGE),
    "length over the limit at an unknown path": ("refused before it is read", TOO_LARGE),
    "length over the limit with a bad token": ("refused before it is read", TOO_LARGE),
    "length over the limit without a token": ("refused before it is read", TOO_LARGE),
    "origin and a body too large": ("refused before it is read", TOO_LARGE),
    "chunked over the limit": ("not cut and then taken for whole", TOO_LARGE),
    # Nobody has to be asked over a bus, so nobody is waited for.
    "grant admin of the room MutePublishedTrack": ("404 at once, not 503 after seconds", NO_PERSON),
    "grant admin of the room UpdateSubscriptions": ("404 at once, not 503 after seconds", NO_PERSON),
    "grant admin of the room SendData": ("404 at once, not 503 after seconds", NO_ROOM),
    "grant admin of the room PerformRpc": ("404 at once, not 503 after seconds", NOBODY),
    "json enum unknown": ("404 at once, not 503 after seconds", NO_ROOM),
    "whip DELETE /whip/v1/PA_nobody": ("404 in our words", NO_SESSION),
    "whip patch with etag": ("404, not 500 after seconds", NO_SESSION),
    "limit egress CreateRoom": (
        "said at once, not forgotten",
        {
            "status": 500,
            "body": {"code": "internal", "msg": "twirp error unknown: egress not connected (redis required)"},
        },
    ),
    # A token belongs into a header or, for browsers' WebSockets, into the query; bodies are not read for one.
    "form good": ("bodies hold no tokens", {"status": 401, "body": "no permissions to access the room"}),
    "form garbage": ("bodies hold no tokens", {"status": 401, "body": "no permissions to access the room"}),
    "form good, query garbage": ("bodies hold no tokens", {"status": 401, "body": "invalid authorization token"}),
    "path /debug/rooms": ("there, for holders of an admin token", {"status": 401, "body": "a token is needed"}),
    # What h11 refuses has no text; the status is what counts.
    "a length that is none": ("no text", BARE_400),
    "a negative length": ("no text", BARE_400),
    "a huge header": ("no text", BARE_431),
    "a huge target": ("no text", BARE_431),
    "an unknown transfer coding": ("no text", {"body": ""}),
    "a chunk that is none": ("no text", {"body": ""}),
    "text in the path": ("a target is ASCII (RFC 9112 section 3.2)", {"status": 400, "body": ""}),
    "the asterisk": ("sent to a path that is there", {"status": 307}),
}
HEADERS_DIFFER = {*DIFFERENT, "a bad escape in the path", "slashes GET /rtc%2Fvalidate"}
CLAIM = "could not JSON decode claim: "


@pytest.fixture(scope="module")
def server() -> Iterator[LkServer]:
    with LkServer(f"keys: {{{KEY}: {SECRET}}}") as running:
        yield running


def meaning(answer: dict[str, Any]) -> Any:
    """JSON may be spaced in any way; behind this text the reference names Go's types, ours the claim."""
    body = answer["body"]
    if isinstance(body, str) and body[:1] == "{":
        return json.loads(body)
    return body.partition(CLAIM)[0] if isinstance(body, str) else body


def test_every_row_has_an_answer() -> None:
    assert {row.name for row in ROWS} == set(REFERENCE)
    assert set(DIFFERENT) <= set(REFERENCE)


class Fresh:
    """The rows as of now: some of their tokens end within seconds, and a test may have to wait long for its turn."""

    def __init__(self) -> None:
        self._made_at = -math.inf
        self._rows: dict[str, Row] = {}

    def row(self, name: str) -> Row:
        if time.monotonic() - self._made_at > FRESH_FOR:
            self._made_at, self._rows = time.monotonic(), {row.name: row for row in rows()}
        return self._rows[name]


FRESH_FOR = 5.0
FRESH = Fresh()


@pytest.mark.parametrize("name", [row.name for row in ROWS], ids=lambda name: name.replace("/", "|")[:70])
def test_answers_are_the_reference_s(server: LkServer, name: str) -> None:
    row, reference = FRESH.row(name), REFERENCE[name]
    wanted = reference | DIFFERENT.get(row.name, ("", {}))[1]
    answer = ask(server.http_url, row)
    assert (answer["status"], meaning(answer)) == (wanted["status"], meaning(wanted))
    if row.name in DIFFERENT:
        assert (answer["status"], meaning(answer)) != (reference["status"], meaning(reference)), (
            "no difference any more"
        )
    if row.name in HEADERS_DIFFER:
        return
    headers, wanted_headers = dict(answer["headers"]), dict(wanted["headers"])
    if row.name.startswith("whip") and answer["body"][:1] == "{":
        # The reference calls its JSON whatever it was sent.
        assert headers.pop("content-type") == "application/json"
        wanted_headers.pop("content-type")
    assert headers == wanted_headers


def test_a_body_that_is_refused_does_not_keep_the_connection_or_the_server_busy(server: LkServer) -> None:
    """Ten promises of ten gigabytes, none kept: the eleventh caller is served."""
    promise = {"Content-Length": str(10 * 1024**3), "Connection": "keep-alive"}
    for number in range(10):
        assert (
            ask(server.http_url, Row(str(number), "POST", "/twirp/livekit.RoomService/ListRooms", promise))["status"]
            == 413
        )
    assert ask(server.http_url, Row("health"))["body"] == "OK"


def test_who_has_no_token_cannot_fill_the_memory(server: LkServer) -> None:
    path, kind = "/twirp/livekit.RoomService/ListRooms", {"Content-Type": "application/json"}
    small, large = b"{}" + b" " * 60_000, b"{}" + b" " * 70_000
    assert ask(server.http_url, Row("small", "POST", path, kind, small))["status"] == 401
    assert ask(server.http_url, Row("large", "POST", path, kind, large))["status"] == 413
    known = kind | bearer(token(video={"roomList": True}))
    assert ask(server.http_url, Row("known", "POST", path, known, large))["status"] == 200


@pytest.mark.parametrize("query", ["a=1&" * 20_000, "a&" * 40_000, "&" * 80_000, "%41" * 20_000])
def test_a_query_of_any_shape_is_taken_and_its_size_is_its_cost(server: LkServer, query: str) -> None:
    assert ask(server.http_url, Row("query", target=f"/rtc/validate?{query}"))["status"] == 401


def test_a_refused_upgrade_says_that_the_connection_ends(server: LkServer) -> None:
    """Else a client's pool sends its next request into the closing."""
    parts = urlsplit(server.http_url)
    for path in ("/rtc", "/agent", "/nope"):
        with socket.create_connection((parts.hostname, parts.port), timeout=20) as connection:
            connection.sendall(Row("upgrade", target=path, headers=UPGRADE).raw(parts.netloc))
            answer = connection.makefile("rb").read()
        assert b"\r\nconnection: close\r\n" in answer.lower()
