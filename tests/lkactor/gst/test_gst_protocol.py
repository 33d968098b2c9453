"""GStreamer's signalling protocol, message by message (livekit-surface section 10)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lkactor.gst import BridgeClosed, BridgeMessage, BridgeWanted, Close, GstEvent, Send, SignallingServer, asked_room
from lkactor.gst.protocol import MAX_ID, MAX_PEERS, MAX_ROOM

NUMBERS = {"alice": 1, "bob": 2, "carol": 3, "dave": 4, "new": 9}


class Table:
    """A server, driven by lines `who: what they say`, and what it answers as `who: text`."""

    def __init__(self, *, bridges: bool = False) -> None:
        self.server = SignallingServer(bridges=bridges)

    def connect(self, *names: str) -> "Table":
        for name in names:
            self.server.connected(NUMBERS[name])
        return self

    def register(self, *names: str) -> "Table":
        self.connect(*names)
        for name in names:
            assert self.say(name, f"HELLO {name}") == [f"{name}: HELLO"]
        return self

    def say(self, name: str, data: str | bytes) -> list[str]:
        self.server.receive(NUMBERS[name], data)
        return self.heard()

    def gone(self, name: str) -> list[str]:
        self.server.disconnected(NUMBERS[name])
        return self.heard()

    def events(self) -> list[GstEvent]:
        found = []
        while (event := self.server.next_event()) is not None:
            found.append(event)
        return found

    def heard(self) -> list[str]:
        return [_line(event) for event in self.events()]


def _line(event: GstEvent) -> str:
    name = next(name for name, number in NUMBERS.items() if number == event.connection)
    match event:
        case Send(data=data):
            return f"{name}: {data!r}" if isinstance(data, bytes) else f"{name}: {data}"
        case Close(code=code, reason=reason):
            return f"{name}: [close {code} {reason}]".replace(" ]", "]")
        case BridgeWanted(uid=uid, room=room, in_room=in_room, offer=offer):
            return f"{name}: [bridge {uid} to {room}{' in room' * in_room}{' offers' * offer}]"
        case BridgeMessage(data=data):
            return f"{name}: [to bridge {data!r}]"
        case BridgeClosed():
            return f"{name}: [bridge closed]"


@pytest.mark.parametrize(
    ("said", "answer", "counter"),
    [
        ("HELLO new", "HELLO", None),
        ("HELLO   new  ", "[close 1002 invalid peer uid]", "gst.bad_uid"),
        ("HELLO new one", "[close 1002 invalid peer uid]", "gst.bad_uid"),
        ("HELLO", "[close 1002 invalid peer uid]", "gst.bad_uid"),
        ("HELLO ", "[close 1002 invalid peer uid]", "gst.bad_uid"),
        ("HELLO alice", "[close 1002 invalid peer uid]", "gst.bad_uid"),
        ("HELLO " + "x" * MAX_ID, "HELLO", None),
        ("HELLO " + "x" * (MAX_ID + 1), "[close 1002 invalid peer uid]", "gst.bad_uid"),
        ("HELLO lkactor:demo", "[close 1002 invalid peer uid]", "gst.bad_uid"),
        ("HELLOnew", "[close 1002 invalid protocol]", "gst.no_hello"),
        ("SESSION alice", "[close 1002 invalid protocol]", "gst.no_hello"),
        ("", "[close 1002 invalid protocol]", "gst.no_hello"),
        (b"HELLO new", "[close 1002 invalid protocol]", "gst.no_hello"),
    ],
)
def test_hello(said: str | bytes, answer: str, counter: str | None) -> None:
    table = Table().register("alice").connect("new")
    assert table.say("new", said) == [f"new: {answer}"]
    assert table.server.counters == ({counter: 1} if counter else {})
    if counter:
        assert table.say("new", "HELLO again") == []
        assert table.server.counters["gst.after_close"] == 1


def test_a_uid_is_free_again_when_its_peer_is_gone() -> None:
    table = Table().register("alice")
    assert table.gone("alice") == []
    table.connect("new")
    assert table.say("new", "HELLO alice") == ["new: HELLO"]


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("SESSION bob", ["alice: SESSION_OK"]),
        ("SESSION nobody", ["alice: ERROR peer 'nobody' not found"]),
        ("SESSION it's", ['alice: ERROR peer "it\'s" not found']),
        ("SESSION a b", ["alice: ERROR peer 'a b' not found"]),
        ("SESSION", ["alice: ERROR peer '' not found"]),
        ("SESSION lkactor:demo", ["alice: ERROR peer 'lkactor:demo' not found"]),
        ("SESSION carol", ["alice: ERROR peer 'carol' busy"]),
        ("SESSION dave", ["alice: ERROR peer 'dave' busy"]),
        ("SESSION alice", ["alice: ERROR peer 'alice' busy"]),
        ("ROOM hall", ["alice: ROOM_OK "]),
        ("ROOM session", ["alice: ERROR invalid room id 'session'"]),
        ("ROOM a b", ["alice: ERROR invalid room id 'a b'"]),
        ("ROOM", ["alice: ERROR invalid room id ''"]),
        ("ROOM den", ["carol: ROOM_PEER_JOINED alice", "alice: ROOM_OK carol"]),
        ("ROOM_PEER_MSG bob x", []),
        ("ROOM_PEER_LIST", []),
        ("anything", []),
        ("", []),
        (b"SESSION bob", []),
    ],
)
def test_idle(said: str | bytes, heard: list[str]) -> None:
    """carol is in a room, dave in a session with someone else."""
    table = Table().register("alice", "bob", "carol", "dave", "new")
    table.say("carol", "ROOM den")
    table.say("dave", "SESSION new")
    assert table.say("alice", said) == heard


def test_a_refused_command_leaves_the_peer_free() -> None:
    table = Table().register("alice", "bob")
    table.say("alice", "SESSION nobody")
    assert table.say("bob", "SESSION alice") == ["bob: SESSION_OK"]


def test_a_session_relays_everything_and_ends_both() -> None:
    table = Table().register("alice", "bob")
    table.say("alice", "SESSION bob")
    for said in ("OFFER_REQUEST", '{"sdp": {}}', "SESSION alice", "HELLO bob", ""):
        assert table.say("alice", said) == [f"bob: {said}"]
        assert table.say("bob", said) == [f"alice: {said}"]
    assert table.say("bob", b"\x00\xff") == ["alice: b'\\x00\\xff'"]
    assert table.gone("bob") == ["alice: [close 1000]"]
    assert table.say("alice", "still there") == []
    assert table.gone("alice") == []


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("ROOM_PEER_MSG bob hello  there ", ["bob: ROOM_PEER_MSG alice hello  there "]),
        ("ROOM_PEER_MSG bob", ["bob: ROOM_PEER_MSG alice "]),
        ("ROOM_PEER_MSG nobody x", ["alice: ERROR peer 'nobody' not found"]),
        ("ROOM_PEER_MSG", ["alice: ERROR peer '' not found"]),
        ("ROOM_PEER_MSG carol x", ["alice: ERROR peer 'carol' is not in the room"]),
        ("ROOM_PEER_MSG dave x", ["alice: ERROR peer 'dave' is not in the room"]),
        ("ROOM_PEER_LIST", ["alice: ROOM_PEER_LIST bob"]),
        ("ROOM other", ["alice: ERROR invalid msg, already in room"]),
        ("SESSION dave", ["alice: ERROR invalid msg, already in room"]),
        ("anything", ["alice: ERROR invalid msg, already in room"]),
        (b"ROOM_PEER_LIST", []),
    ],
)
def test_room(said: str | bytes, heard: list[str]) -> None:
    """alice and bob are in the hall, carol elsewhere, dave free."""
    table = Table().register("alice", "bob", "carol", "dave")
    assert table.say("alice", "ROOM hall") == ["alice: ROOM_OK "]
    assert table.say("bob", "ROOM hall") == ["alice: ROOM_PEER_JOINED bob", "bob: ROOM_OK alice"]
    table.say("carol", "ROOM den")
    assert table.say("alice", said) == heard


def test_leaving_a_room() -> None:
    table = Table().register("alice", "bob", "carol")
    for name in ("alice", "bob", "carol"):
        table.say(name, "ROOM hall")
    assert table.gone("alice") == ["bob: ROOM_PEER_LEFT alice", "carol: ROOM_PEER_LEFT alice"]
    assert table.say("bob", "ROOM_PEER_LIST") == ["bob: ROOM_PEER_LIST carol"]
    table.gone("bob")
    table.gone("carol")
    assert table.server.rooms == {}


def test_bounds() -> None:
    server = SignallingServer()
    for number in range(MAX_PEERS):
        server.connected(number)
    server.connected(MAX_PEERS)
    assert server.next_event() == Close(MAX_PEERS, 1013, "too many peers")
    for number in range(MAX_ROOM + 1):
        server.receive(number, f"HELLO {number}")
        server.receive(number, "ROOM hall")
    last = None
    while (event := server.next_event()) is not None:
        last = event
    assert last == Send(MAX_ROOM, "ERROR room 'hall' is full")


# -- the bridge


def test_a_call_to_the_bridge() -> None:
    table = Table(bridges=True).register("alice", "bob")
    assert table.say("alice", "SESSION lkactor:demo") == ["alice: [bridge alice to demo]"]
    assert table.say("alice", "too early") == []
    table.server.bridge_ready(1)
    assert table.heard() == ["alice: SESSION_OK"]
    assert table.say("bob", "SESSION alice") == ["bob: ERROR peer 'alice' busy"]
    # A bridge is never busy: each peer has its own.
    assert table.say("bob", "SESSION lkactor:demo") == ["bob: [bridge bob to demo]"]
    assert table.say("alice", "{}") == ["alice: [to bridge '{}']"]
    assert table.say("alice", b"\x01") == ["alice: [to bridge b'\\x01']"]
    table.server.bridge_send(1, "answer")
    assert table.heard() == ["alice: answer"]
    assert table.gone("alice") == ["alice: [bridge closed]"]
    table.server.bridge_send(1, "late")
    table.server.bridge_ended(1)
    assert table.heard() == []


def test_a_bridge_that_does_not_come_about() -> None:
    table = Table(bridges=True).register("alice", "bob")
    table.say("alice", "SESSION lkactor:demo")
    table.server.bridge_ended(1)
    assert table.heard() == ["alice: ERROR peer 'lkactor:demo' not found"]
    assert table.say("alice", "SESSION bob") == ["alice: SESSION_OK"]


@pytest.mark.parametrize("uid", ["lkactor:", "lkactor:a b", "lkactor:" + "x" * (MAX_ID + 1)])
def test_rooms_that_cannot_be(uid: str) -> None:
    table = Table(bridges=True).register("alice")
    assert table.say("alice", f"SESSION {uid}")[0].endswith("not found")


def test_the_end_of_a_bridge_ends_the_call() -> None:
    table = Table(bridges=True).register("alice")
    table.say("alice", "SESSION lkactor:demo")
    table.server.bridge_ready(1)
    table.heard()
    table.server.bridge_ended(1)
    assert table.heard() == ["alice: [close 1000]"]


def test_the_bridge_as_a_member_of_a_room() -> None:
    """There is a LiveKit room already: the newcomer offers, as to every other member."""
    table = Table(bridges=True).register("alice", "bob")
    table.server.set_live("hall", True)
    assert table.say("alice", "ROOM hall") == ["alice: [bridge alice to hall in room]", "alice: ROOM_OK lkactor:hall"]
    assert table.say("bob", "ROOM hall") == [
        "alice: ROOM_PEER_JOINED bob", "bob: [bridge bob to hall in room]", "bob: ROOM_OK lkactor:hall alice",
    ]  # fmt: skip
    assert table.say("alice", "ROOM_PEER_LIST") == ["alice: ROOM_PEER_LIST lkactor:hall bob"]
    assert table.say("alice", "ROOM_PEER_MSG lkactor:hall {}") == ["alice: [to bridge '{}']"]
    assert table.say("alice", "ROOM_PEER_MSG lkactor:other {}") == ["alice: ERROR peer 'lkactor:other' not found"]
    table.server.bridge_send(2, "{}")
    assert table.heard() == ["bob: ROOM_PEER_MSG lkactor:hall {}"]
    table.server.bridge_ended(2)
    assert table.heard() == ["bob: ROOM_PEER_LEFT lkactor:hall"]
    assert table.gone("alice") == ["alice: [bridge closed]", "bob: ROOM_PEER_LEFT alice"]


def test_a_livekit_room_that_comes_later() -> None:
    table = Table(bridges=True).register("alice")
    table.server.set_live("hall", False)
    assert table.say("alice", "ROOM hall") == ["alice: ROOM_OK "]
    assert table.say("alice", "ROOM_PEER_LIST") == ["alice: ROOM_PEER_LIST "]
    for _ in range(2):
        table.server.set_live("hall", True)
    assert table.heard() == ["alice: ROOM_PEER_JOINED lkactor:hall", "alice: [bridge alice to hall in room offers]"]
    table.server.set_live("hall", False)
    table.server.bridge_ended(1)
    assert table.heard() == ["alice: ROOM_PEER_LEFT lkactor:hall"]
    assert table.server.rooms == {"hall": False}


@pytest.mark.parametrize(
    ("data", "room"),
    [("ROOM hall", "hall"), ("ROOM", ""), ("ROOM a b", ""), ("SESSION hall", ""), (b"ROOM hall", ""), ("", "")],
)
def test_asked_room(data: str | bytes, room: str) -> None:
    assert asked_room(data) == room


WORDS = st.sampled_from(
    ["HELLO", "SESSION", "ROOM", "ROOM_PEER_MSG", "ROOM_PEER_LIST", "0", "1", "2", "hall", "lkactor:hall", " ", "x"]
)
FRAMES = st.one_of(st.lists(WORDS, max_size=4).map(" ".join), st.text(max_size=20), st.binary(max_size=8))
VERBS = st.sampled_from(["connected", "receive", "disconnected", "ready", "ended", "live"])
STEPS = st.lists(st.tuples(VERBS, st.integers(0, 2), FRAMES), max_size=60)


@given(steps=STEPS)
def test_nothing_that_peers_do_breaks_the_server(steps: list[tuple[str, int, str | bytes]]) -> None:
    server = SignallingServer(bridges=True)
    open_now: set[int] = set()
    for verb, number, frame in steps:
        match verb:
            case "connected" if number not in open_now:
                open_now.add(number)
                server.connected(number)
                server.receive(number, f"HELLO {number}")
            case "disconnected":
                open_now.discard(number)
                server.disconnected(number)
            case "ready":
                server.bridge_ready(number)
            case "ended":
                server.bridge_ended(number)
            case "live":
                server.set_live("hall", len(frame) % 2 == 0)
            case _:
                server.receive(number, frame)
        while (event := server.next_event()) is not None:
            assert event.connection in open_now or isinstance(event, BridgeClosed)
            if isinstance(event, Close):
                open_now.discard(event.connection)
                server.disconnected(event.connection)
