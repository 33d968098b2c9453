"""GStreamer's WebRTC signalling server, without its sockets (livekit-surface section 10).

Words over WebSocket text frames. A peer registers, then is in a session with one other peer, or in a room with many.

| state   | the peer says              | the server                                                              |
|---------|----------------------------|-------------------------------------------------------------------------|
| NEW     | HELLO <uid>                | HELLO: IDLE. Bad or taken uid, any other word: close 1002                |
| IDLE    | SESSION <uid>              | SESSION_OK to the caller, both are in SESSION; or ERROR                  |
| IDLE    | SESSION lkactor:<room>     | `BridgeWanted`: CALLING until `bridge_ready` or `bridge_ended`; or ERROR |
| IDLE    | ROOM <id>                  | ROOM_OK and the members, who get ROOM_PEER_JOINED: ROOM; or ERROR        |
| CALLING | anything                   | ignored                                                                 |
| SESSION | anything                   | relayed to the other as it is                                           |
| ROOM    | ROOM_PEER_MSG <uid> <msg>  | ROOM_PEER_MSG <sender> <msg> to that member; or ERROR                    |
| ROOM    | ROOM_PEER_LIST             | ROOM_PEER_LIST and the other members                                    |
| ROOM    | anything else              | ERROR                                                                   |

The end of a connection ends the other one of its session, and is told to the members of its room. Where GStreamer's
own server departs from its protocol's document, the document is followed: ROOM_PEER_LIST is answered, a peer in a
session or a room is busy, and a command without its argument is an error, not the end of the connection.

The bridge is a peer of our own, `lkactor:<room>`: to a session or room it is one more member, behind it is a LiveKit
room. Every peer has a bridge of its own; the caller runs them and speaks for them with `bridge_send`, and says who may
have one (lkactor/gst/access.py). To who may not, the bridge is no member of a room.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from lkactor.counters import Counters
from lkactor.gst.access import split_call

BRIDGE_PREFIX = "lkactor:"
MAX_ID = 200
"""Characters of a peer's or room's name."""
MAX_PEERS = 4096
MAX_ROOM = 512
MAX_SHOWN = 64
"""Characters of a peer's own text that an error repeats."""
PROTOCOL_ERROR = 1002
TRY_AGAIN_LATER = 1013


class State(enum.Enum):
    NEW = "new"
    IDLE = "idle"
    CALLING = "calling"
    SESSION = "session"
    ROOM = "room"


@dataclass(frozen=True, slots=True)
class Send:
    """One frame for a connection: text, or binary as it was relayed."""

    connection: int
    data: str | bytes


@dataclass(frozen=True, slots=True)
class Close:
    """Close a connection. The caller still reports its end with `disconnected`."""

    connection: int
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class BridgeWanted:
    """A peer is to meet a LiveKit room. `offer` says that the bridge begins; `in_room`: the peer is in a ROOM with it.

    For a session the answer is `bridge_ready` or `bridge_ended`.
    """

    connection: int
    uid: str
    room: str
    in_room: bool
    offer: bool
    token: str = field(default="", repr=False)
    """By which it was allowed."""


@dataclass(frozen=True, slots=True)
class BridgeMessage:
    """What the peer says to its bridge."""

    connection: int
    data: str | bytes


@dataclass(frozen=True, slots=True)
class BridgeClosed:
    """The peer is gone."""

    connection: int


GstEvent = Send | Close | BridgeWanted | BridgeMessage | BridgeClosed


@dataclass(slots=True)
class _Peer:
    connection: int
    state: State = State.NEW
    uid: str = ""
    other: int | None = None
    """SESSION: the other's connection; None if it is a bridge."""
    room: str = ""
    """ROOM: its id. CALLING and SESSION with a bridge: the LiveKit room."""
    token: str = field(default="", repr=False)
    """That it came with; "" without."""
    bridged: bool = False
    """Has a bridge: `BridgeWanted` was said and neither side has ended it."""


@dataclass(slots=True)
class _Room:
    members: dict[str, _Peer] = field(default_factory=dict)
    live: bool = False
    """There is a LiveKit room of this name: the bridge is a member."""


class SignallingServer:
    """All peers of one server. Verbs: `connected`, `receive`, `disconnected`, `next_event`; for bridges `bridge_*`."""

    def __init__(self, *, bridges: bool = False, allows: Callable[[str, str], bool] = lambda token, room: True) -> None:
        """`allows(token, room)` says who may be bridged into a LiveKit room; the token may be ""."""
        self._bridges = bridges
        self._allows = allows
        self._peers: dict[int, _Peer] = {}
        self._by_uid: dict[str, _Peer] = {}
        self._rooms: dict[str, _Room] = {}
        self._live: set[str] = set()
        self._events: deque[GstEvent] = deque()
        self.counters = Counters()

    def next_event(self) -> GstEvent | None:
        return self._events.popleft() if self._events else None

    @property
    def rooms(self) -> dict[str, bool]:
        """The GStreamer rooms, and whether the bridge is a member."""
        return {name: room.live for name, room in self._rooms.items()}

    # -- connections ------------------------------------------------------------------------------------------------

    def connected(self, connection: int, token: str = "") -> None:
        if len(self._peers) >= MAX_PEERS:
            self.counters.count("gst.too_many_peers")
            self._events.append(Close(connection, TRY_AGAIN_LATER, "too many peers"))
            return
        self._peers[connection] = _Peer(connection, token=token)

    def disconnected(self, connection: int) -> None:
        """Known or not: a refused connection ends, too."""
        peer = self._peers.pop(connection, None)
        if peer is None:
            return
        if self._by_uid.get(peer.uid) is peer:
            del self._by_uid[peer.uid]
        if peer.bridged:
            self._events.append(BridgeClosed(connection))
        if peer.other is not None:
            self._end_session(peer.other)
        if peer.state is State.ROOM:
            self._leave_room(peer)

    def receive(self, connection: int, data: str | bytes) -> None:
        """One frame of a peer."""
        peer = self._peers.get(connection)
        if peer is None:
            self.counters.count("gst.after_close")
            return
        match peer.state:
            case State.NEW:
                self._hello(peer, data)
            case State.SESSION:
                self._relay(peer, data)
            case State.CALLING:
                self.counters.count("gst.not_connected_yet")
            case _ if isinstance(data, bytes):
                # Commands are text; only what is relayed may be binary.
                self.counters.count("gst.binary_command")
            case State.IDLE:
                self._command(peer, data)
            case State.ROOM:
                self._room_command(peer, data)

    # -- NEW --------------------------------------------------------------------------------------------------------

    def _hello(self, peer: _Peer, data: str | bytes) -> None:
        word, uid = _split(data) if isinstance(data, str) else ("", "")
        if word != "HELLO":
            self._refuse(peer, "invalid protocol", "gst.no_hello")
        elif not _is_name(uid) or uid in self._by_uid or uid.startswith(BRIDGE_PREFIX):
            self._refuse(peer, "invalid peer uid", "gst.bad_uid")
        else:
            peer.uid, peer.state = uid, State.IDLE
            self._by_uid[uid] = peer
            self._send(peer, "HELLO")

    def _refuse(self, peer: _Peer, reason: str, counter: str) -> None:
        self.counters.count(counter)
        del self._peers[peer.connection]
        self._events.append(Close(peer.connection, PROTOCOL_ERROR, reason))

    # -- IDLE -------------------------------------------------------------------------------------------------------

    def _command(self, peer: _Peer, text: str) -> None:
        word, argument = _split(text)
        match word:
            case "SESSION" if argument.startswith(BRIDGE_PREFIX) and self._bridges:
                self._call_bridge(peer, argument)
            case "SESSION":
                self._call(peer, argument)
            case "ROOM":
                self._join_room(peer, argument)
            case _:
                self.counters.count("gst.unknown_command")

    def _call(self, peer: _Peer, uid: str) -> None:
        callee = self._by_uid.get(uid)
        if callee is None:
            self._error(peer, f"peer {_shown(uid)} not found", "gst.peer_not_found")
        elif callee.state is not State.IDLE or callee is peer:
            self._error(peer, f"peer {_shown(uid)} busy", "gst.peer_busy")
        else:
            peer.state = callee.state = State.SESSION
            peer.other, callee.other = callee.connection, peer.connection
            self._send(peer, "SESSION_OK")

    def _call_bridge(self, peer: _Peer, uid: str) -> None:
        uid, token = split_call(uid)
        room, token = uid.removeprefix(BRIDGE_PREFIX), token or peer.token
        if not _is_name(room):
            self._error(peer, f"peer {_shown(uid)} not found", "gst.peer_not_found")
            return
        if not self._allows(token, room):
            self._error(peer, f"peer {_shown(uid)} needs a token that allows to join the room", "gst.not_allowed")
            return
        peer.state, peer.room = State.CALLING, room
        self._want_bridge(peer, token, offer=False)

    def _join_room(self, peer: _Peer, name: str) -> None:
        # "session" is what GStreamer's server calls the state of those in a session, where it keeps a room's name.
        if not _is_name(name) or name == "session":
            self._error(peer, f"invalid room id {_shown(name)}", "gst.bad_room")
            return
        room = self._rooms.get(name)
        if room is None:
            room = self._rooms[name] = _Room(live=name in self._live)
        if len(room.members) >= MAX_ROOM:
            self._error(peer, f"room {_shown(name)} is full", "gst.room_full")
            return
        others = [*room.members]
        for member in room.members.values():
            self._send(member, f"ROOM_PEER_JOINED {peer.uid}")
        peer.state, peer.room = State.ROOM, name
        room.members[peer.uid] = peer
        if room.live and self._allows(peer.token, name):
            others.insert(0, BRIDGE_PREFIX + name)
            self._want_bridge(peer, peer.token, offer=False)
        # A blank after ROOM_OK also when nobody is there: GStreamer's clients look for it.
        self._send(peer, f"ROOM_OK {' '.join(others)}")

    # -- SESSION ----------------------------------------------------------------------------------------------------

    def _relay(self, peer: _Peer, data: str | bytes) -> None:
        if peer.other is not None:
            self._events.append(Send(peer.other, data))
        elif peer.bridged:
            self._events.append(BridgeMessage(peer.connection, data))

    def _end_session(self, connection: int) -> None:
        """The other side is gone: GStreamer's clients take the end of their connection as the end of the call."""
        peer = self._peers.pop(connection, None)
        if peer is None:
            return
        del self._by_uid[peer.uid]
        self._events.append(Close(connection, 1000, ""))

    # -- ROOM -------------------------------------------------------------------------------------------------------

    def _room_command(self, peer: _Peer, text: str) -> None:
        word, rest = _split(text)
        if word == "ROOM_PEER_MSG":
            uid, message = _split(rest)
            self._room_message(peer, uid, message)
        elif text.strip() == "ROOM_PEER_LIST":
            room = self._rooms[peer.room]
            others = [uid for uid in room.members if uid != peer.uid]
            if peer.bridged:
                others.insert(0, BRIDGE_PREFIX + peer.room)
            self._send(peer, f"ROOM_PEER_LIST {' '.join(others)}")
        else:
            self._error(peer, "invalid msg, already in room", "gst.already_in_room")

    def _room_message(self, peer: _Peer, uid: str, message: str) -> None:
        if uid == BRIDGE_PREFIX + peer.room and peer.bridged:
            self._events.append(BridgeMessage(peer.connection, message))
            return
        other = self._by_uid.get(uid)
        if other is None:
            self._error(peer, f"peer {_shown(uid)} not found", "gst.peer_not_found")
        elif other.room != peer.room or other.state is not State.ROOM:
            self._error(peer, f"peer {_shown(uid)} is not in the room", "gst.peer_elsewhere")
        else:
            self._send(other, f"ROOM_PEER_MSG {peer.uid} {message}")

    def _leave_room(self, peer: _Peer) -> None:
        room = self._rooms[peer.room]
        del room.members[peer.uid]
        if not room.members:
            del self._rooms[peer.room]
        for member in room.members.values():
            self._send(member, f"ROOM_PEER_LEFT {peer.uid}")

    # -- bridges ----------------------------------------------------------------------------------------------------

    def set_live(self, name: str, live: bool) -> None:
        """There is, or is no longer, a LiveKit room of this name. Members of the ROOM meet the bridge, which offers."""
        if not self._bridges:
            return
        room = self._rooms.get(name)
        if room is None:
            # Nobody is there yet: remembered for the ROOM command that follows.
            self._live = {name} if live else set()
            return
        if live and not room.live:
            for member in room.members.values():
                if self._allows(member.token, name):
                    self._send(member, f"ROOM_PEER_JOINED {BRIDGE_PREFIX}{name}")
                    self._want_bridge(member, member.token, offer=True)
        room.live = live

    def bridge_ready(self, connection: int) -> None:
        """A bridge has joined its LiveKit room."""
        peer = self._peers.get(connection)
        if peer is not None and peer.bridged and peer.state is State.CALLING:
            peer.state = State.SESSION
            self._send(peer, "SESSION_OK")

    def bridge_send(self, connection: int, text: str) -> None:
        """A bridge says something to its peer."""
        peer = self._peers.get(connection)
        if peer is None or not peer.bridged:
            return
        if peer.state is State.SESSION:
            self._send(peer, text)
        elif peer.state is State.ROOM:
            self._send(peer, f"ROOM_PEER_MSG {BRIDGE_PREFIX}{peer.room} {text}")

    def bridge_ended(self, connection: int) -> None:
        """A bridge could not join, or its LiveKit session is over."""
        peer = self._peers.get(connection)
        if peer is None or not peer.bridged:
            return
        peer.bridged = False
        if peer.state is State.CALLING:
            peer.state = State.IDLE
            self._error(peer, f"peer {_shown(BRIDGE_PREFIX + peer.room)} not found", "gst.bridge_refused")
            peer.room = ""
        elif peer.state is State.SESSION:
            self._end_session(connection)
        else:
            self._send(peer, f"ROOM_PEER_LEFT {BRIDGE_PREFIX}{peer.room}")

    def _want_bridge(self, peer: _Peer, token: str, *, offer: bool) -> None:
        peer.bridged = True
        in_room = peer.state is State.ROOM
        self._events.append(BridgeWanted(peer.connection, peer.uid, peer.room, in_room, offer, token))

    # -- small things -----------------------------------------------------------------------------------------------

    def _send(self, peer: _Peer, text: str) -> None:
        self._events.append(Send(peer.connection, text))

    def _error(self, peer: _Peer, text: str, counter: str) -> None:
        self.counters.count(counter)
        self._send(peer, f"ERROR {text}")


def asked_room(data: str | bytes) -> str:
    """The room that a frame asks to join, "" for other frames: the caller may look whether LiveKit has it."""
    word, name = _split(data) if isinstance(data, str) else ("", "")
    return name if word == "ROOM" and _is_name(name) else ""


def _split(text: str) -> tuple[str, str]:
    """The first word, and the rest as it is."""
    word, *rest = text.split(maxsplit=1) or [""]
    return word, rest[0] if rest else ""


def _is_name(text: str) -> bool:
    return 0 < len(text) <= MAX_ID and text.split() == [text]


def _shown(text: str) -> str:
    """As Python's `repr`, which GStreamer's server uses and its clients may compare."""
    return repr(text if len(text) <= MAX_ID else f"{text[:MAX_SHOWN]}...")
