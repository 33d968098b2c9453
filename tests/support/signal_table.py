"""Rows of the signalling table: what a client asks, and exactly what it must hear, in that order.

A row is played by one client, once in protobuf and once in JSON; each answer must come in the framing of the question.
What is not named in `hears` may come between: updates, candidates, speakers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from google.protobuf.json_format import MessageToDict
from livekit.protocol import rtc
from support.signal_client import NEVER_KNOWN, Closed, Heard, Scene, SignalClient

Request = Mapping[str, Any] | Callable[[SignalClient], Mapping[str, Any]]
ECHOES = {
    "publish_data_track_request": "publish_data_track",
    "unpublish_data_track_request": "unpublish_data_track",
    "store_data_blob_request": None,
    "get_data_blob_request": None,
}
"""Under which field a RequestResponse repeats the request, where that is not the request's own name."""


class Some(dict[str, Any]):
    """Matches a tree that has these fields, and perhaps more."""


def matches(seen: Any, wanted: Any) -> bool:
    """`wanted`: a value, a predicate, `Some(...)`, or a dict or list of these, which must fit exactly."""
    if isinstance(wanted, Some):
        return isinstance(seen, dict) and all(matches(seen.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, dict):
        fits = isinstance(seen, dict) and seen.keys() == wanted.keys()
        return fits and all(matches(seen[key], value) for key, value in wanted.items())
    if isinstance(wanted, list):
        fits = isinstance(seen, list) and len(seen) == len(wanted)
        return fits and all(matches(a, b) for a, b in zip(seen, wanted, strict=True))
    return bool(wanted(seen)) if callable(wanted) else bool(seen == wanted)


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 1000 else text[:1000] + "..."


class Play:
    """A row being played: where in the stream of responses we are, and what was asked last."""

    def __init__(self, scene: Scene, client: SignalClient) -> None:
        self.scene, self.client = scene, client
        self.place = len(client.heard)
        self.last = rtc.SignalRequest()

    def next_of(self, kind: str, first: Callable[[Heard], bool]) -> int | None:
        """The index of the next response of this kind that is not a fence's."""
        heard = self.client.heard
        return next((i for i in range(self.place, len(heard)) if heard[i].kind == kind and first(heard[i])), None)


class Step(Protocol):
    async def play(self, play: Play) -> None: ...


@dataclass(frozen=True, slots=True)
class Ask:
    request: Request

    async def play(self, play: Play) -> None:
        request = self.request(play.client) if callable(self.request) else self.request
        play.last = rtc.SignalRequest(**request)
        await play.client.ask(**request)


@dataclass(frozen=True, slots=True)
class Raw:
    frame: str | bytes

    async def play(self, play: Play) -> None:
        await play.client.send_raw(self.frame)


def _no_fence(heard: Heard) -> bool:
    return heard.kind != "request_response" or not heard.body.mute.sid.startswith(NEVER_KNOWN)


@dataclass(frozen=True, slots=True)
class Hears:
    """The next response of this kind fits. Of updates, one of the next: others may be on their way."""

    kind: str
    wanted: Any

    async def play(self, play: Play) -> None:
        def first(heard: Heard) -> bool:
            return _no_fence(heard) and (self.kind != "update" or matches(heard.tree(), self.wanted))

        client = play.client
        await client.until(lambda: play.next_of(self.kind, first) is not None, f"{self.kind} like {short(self.wanted)}")
        place = play.next_of(self.kind, first)
        assert place is not None
        heard = client.heard[place]
        assert matches(heard.tree(), self.wanted), f"{short(heard.tree())}\nis not\n{short(self.wanted)}"
        assert heard.text == client.json, "answered in the other framing"
        play.place = place + 1


@dataclass(frozen=True, slots=True)
class RefusedWith:
    """RequestResponse with this reason that repeats the last request. `message` None: whatever it is."""

    reason: str
    message: str | None = None

    async def play(self, play: Play) -> None:
        kind = play.last.WhichOneof("message")
        assert kind is not None
        body = getattr(play.last, kind)
        echo = ECHOES.get(kind, kind)
        wanted: dict[str, Any] = {} if self.reason == "OK" else {"reason": self.reason}
        if echo is not None:
            wanted[echo] = MessageToDict(body, preserving_proto_field_name=True)
        if getattr(body, "request_id", 0):
            wanted["request_id"] = body.request_id
        if self.message:
            wanted["message"] = self.message
        free = self.message is None

        def fits(tree: dict[str, Any]) -> bool:
            tree = {key: value for key, value in tree.items() if not (free and key == "message")}
            return matches(tree, wanted)

        await Hears("request_response", fits).play(play)


@dataclass(frozen=True, slots=True)
class Silence:
    """Everything asked so far is handled, and nothing of these kinds was said about it."""

    kinds: tuple[str, ...]
    or_end: bool = False
    """The session may end over it, before the rest is handled or after it."""

    async def play(self, play: Play) -> None:
        if self.or_end:
            with contextlib.suppress(Closed):
                await play.client.fence()
            end = len(play.client.heard)
        else:
            end = await play.client.fence()
        said = [heard for heard in play.client.heard[play.place : end] if heard.kind in self.kinds]
        assert not [heard for heard in said if _no_fence(heard)], said
        play.place = end


@dataclass(frozen=True, slots=True)
class Ends:
    """The server closes with this code."""

    code: int

    async def play(self, play: Play) -> None:
        assert await play.client.ended() == self.code


def ask(**request: Any) -> Ask:
    return Ask(request)


def silence(*kinds: str, or_end: bool = False) -> Silence:
    return Silence(kinds or ("request_response",), or_end)


@dataclass(frozen=True, slots=True)
class Row:
    """One exchange of one client."""

    name: str
    steps: tuple[Step, ...]
    grants: Mapping[str, Any] = field(default_factory=dict)
    protocol: int = 16
    ours: str = ""
    """Why the reference is not asked: what we do differently, and on purpose."""


async def play(row: Row, scene: Scene, *, json: bool, v1: bool) -> None:
    client = await scene.join("alice", v1=v1, json=json, grants=row.grants, protocol=row.protocol)
    assert client.heard[0].kind == "join" and not client.heard[0].text
    await client.fence()
    played = Play(scene, client)
    for step in row.steps:
        await step.play(played)
