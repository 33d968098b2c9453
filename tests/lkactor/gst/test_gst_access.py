"""Tokens beside GStreamer's words: where they come from, and which of them let a peer into a room."""

import pytest

from lkactor.auth import MAX_TOKEN, issue_token
from lkactor.counters import Counters
from lkactor.gst import BridgeWanted, Send, SignallingServer
from lkactor.gst.access import claims_for, split_call, token_of

KEYS = {"key": "a-secret-for-tests-of-32-bytes-or-more"}
NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("target", "headers", "token"),
    [
        ("/", {}, ""),
        ("/?access_token=abc", {}, "abc"),
        ("/ws?x=1&access_token=abc", {}, "abc"),
        ("/?access_token=abc", {"authorization": "Bearer def"}, "def"),
        ("/", {"authorization": "Basic def"}, ""),
        ("/?" + "&".join(f"a{n}=1" for n in range(100)), {}, ""),
        ("//[?access_token=abc", {}, ""),
        (f"/?access_token={'a' * (MAX_TOKEN + 1)}", {}, ""),
    ],
)
def test_where_a_token_comes_from(target, headers, token):
    assert token_of(target, headers) == token


def test_of_a_call():
    assert split_call("lkactor:a?access_token=x.y.z") == ("lkactor:a", "x.y.z")
    assert split_call("lkactor:a?b") == ("lkactor:a?b", "")


def token(video=None, **more):
    return issue_token("key", more.pop("secret", KEYS["key"]), now_unix=NOW, video=video, **more)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "gst.no_token"),
        ("x.y.z", "gst.bad_token"),
        (token({"room_join": True, "room": "a"}, ttl=-120), "gst.bad_token"),
        (token({"room_join": True, "room": "a"}, secret="another-secret-for-tests-of-32-bytes"), "gst.bad_token"),
        (token(), "gst.no_grant"),
        (token({"room_join": True, "room": "b"}), "gst.no_grant"),
        (token({"room_join": True}), "gst.no_grant"),
        (token({"room": "a", "room_admin": True}), "gst.no_grant"),
    ],
)
def test_refused(text, reason):
    counters = Counters()
    assert claims_for(text, "a", KEYS, NOW, counters) is None
    assert counters == {reason: 1}


def test_allowed():
    claims = claims_for(token({"room_join": True, "room": "a"}, identity="cam"), "a", KEYS, NOW)
    assert claims is not None and claims.identity == "cam"


def test_the_protocol_asks_and_says_no_token():
    asked = []

    def allows(text, room):
        asked.append((text, room))
        return text == "good"

    server = SignallingServer(bridges=True, allows=allows)
    server.connected(1, "poor")
    server.connected(2, "good")
    for number, name in ((1, "one"), (2, "two")):
        server.receive(number, f"HELLO {name}")
    server.receive(1, "SESSION lkactor:a?access_token=secret")
    server.receive(1, "SESSION lkactor:a")
    server.receive(1, "SESSION lkactor:a?access_token=good")
    server.receive(2, "SESSION lkactor:b")
    events = []
    while (event := server.next_event()) is not None:
        events.append(event)
    assert asked == [("secret", "a"), ("poor", "a"), ("good", "a"), ("good", "b")]
    refusal = Send(1, "ERROR peer 'lkactor:a' needs a token that allows to join the room")
    assert events[2:4] == [refusal, refusal]
    assert [(e.uid, e.room, e.token) for e in events[4:]] == [("one", "a", "good"), ("two", "b", "good")]
    assert all(isinstance(event, BridgeWanted) and "good" not in repr(event) for event in events[4:])
