"""The SDKs of the compatibility matrix behind one set of verbs, those of tests/interop/web/harness.js.

A guest has `call(verb, *args)`, JSON in and out: `PageGuest` is livekit-client in a page of Chromium, `NodeGuest`
@livekit/rtc-node in a process of its own, `PythonGuest` the Python SDK in this one. A verb that fails raises.
"""

import asyncio
import concurrent.futures
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from livekit import rtc
from livekit.rtc import SimulateScenarioKind as Kind
from support.browser import Page
from support.interop import LIMIT, Client, Event, Published, Server, hears_tone, sees_colours

PYTHON_SCENARIOS = {
    "signal-reconnect": Kind.SIMULATE_SIGNAL_RECONNECT,
    "speaker": Kind.SIMULATE_SPEAKER,
    "node-failure": Kind.SIMULATE_NODE_FAILURE,
    "server-leave": Kind.SIMULATE_SERVER_LEAVE,
    "migration": Kind.SIMULATE_MIGRATION,
    "force-tcp": Kind.SIMULATE_FORCE_TCP,
    "force-tls": Kind.SIMULATE_FORCE_TLS,
    "full-reconnect": Kind.SIMULATE_FULL_RECONNECT,
    "disconnect-signal-on-resume": Kind.SIMULATE_DISCONNECT_SIGNAL_ON_RESUME,
}


class Guest(Protocol):
    """One SDK. `connect` begins a new room, `disconnect` ends it."""

    async def call(self, verb: str, *args: Any) -> Any: ...


class PageGuest:
    def __init__(self, page: Page) -> None:
        self._page = page

    async def call(self, verb: str, *args: Any) -> Any:
        return await self._page.call(verb, *args)


class GuestError(Exception):
    """What a verb raised in another process."""


def node_missing(directory: Path) -> str | None:
    """Why no Node guest can run, or None."""
    if shutil.which("node") is None:
        return "no node"
    if not (directory / "node_modules" / "@livekit" / "rtc-node").is_dir():
        return f"the npm clients are not installed: run `npm ci` in {directory}"
    return None


class NodeGuest:
    """Context manager: a Node process that takes one room after the other. May be called from any loop."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            ["node", "guest.mjs"],
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # the SDK's log of every step goes to where the answers go
            env=os.environ | {"NODE_ENV": "production"},
        )
        self._ids = itertools.count(1)
        self._waiting: dict[int, concurrent.futures.Future[Any]] = {}
        self._reader = threading.Thread(target=self._read, name="node-guest", daemon=True)

    def __enter__(self) -> "NodeGuest":
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(10)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line) if line.startswith('{"id":') else None
            if answer is None:
                print("node:", line.rstrip())
                continue
            future = self._waiting.pop(answer["id"])
            if not future.set_running_or_notify_cancel():
                continue  # Whoever asked has given up.
            if "error" in answer:
                future.set_exception(GuestError(answer["error"]))
            else:
                future.set_result(answer["value"])
        while self._waiting:
            future = self._waiting.popitem()[1]
            if future.set_running_or_notify_cancel():
                future.set_exception(GuestError("the Node process ended"))

    async def call(self, verb: str, *args: Any) -> Any:
        number, future = next(self._ids), concurrent.futures.Future[Any]()
        self._waiting[number] = future
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([number, verb, *args]) + "\n")
        self._process.stdin.flush()
        return await asyncio.wait_for(asyncio.wrap_future(future), LIMIT * 3)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _plain(value: Any) -> Any:
    """As the harness puts the arguments of events into JSON: people by identity, packets by their text."""
    if isinstance(value, rtc.Participant):
        return value.identity
    if isinstance(value, rtc.DataPacket):
        return value.data.decode(errors="replace")
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value if isinstance(value, str | int | float | bool | dict | None) else str(value)


def _rgb(text: str) -> tuple[int, int, int]:
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def noise(length: int) -> bytes:
    """The bytes that the harness sends."""
    made, state = bytearray(), 12345
    for _ in range(length):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        made.append(state >> 16 & 255)
    return bytes(made)


class PythonGuest:
    """The Python SDK: each verb is a method of that name in snake case."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._client: Client
        self._published: dict[str, Published] = {}

    async def call(self, verb: str, *args: Any) -> Any:
        snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in verb)
        method: Callable[..., Awaitable[Any]] = getattr(self, f"do_{snake}")
        return await method(*args)

    async def do_connect(self, url: str, token: str, options: dict[str, Any]) -> Any:
        self._client, self._published = Client(self._server, ""), {}
        await self._client.connect("", token=token, single_pc=options["singlePeerConnection"])
        self._client.identity = self._client.local.identity
        return await self.do_me()

    async def do_disconnect(self) -> None:
        await self._client.close()

    async def do_me(self) -> Any:
        return {"identity": self._client.local.identity, "sid": self._client.local.sid}

    async def do_mark(self) -> Any:
        return self._client.mark()

    def _fitting(self, name: str, text: str, since: int) -> list[Event]:
        events = self._client.events[since:]
        return [e for e in events if _camel(e.name) == name and text in json.dumps(_plain(e.args))]

    async def do_event(self, name: str, text: str = "", since: int = 0, limit: float = LIMIT * 1000) -> Any:
        """`limit` in milliseconds, as in the harness."""
        await self._client.until(
            lambda: bool(self._fitting(name, text, since)), f"event {name} {text}", limit=limit / 1000
        )
        return {"name": name, "args": _plain(self._fitting(name, text, since)[0].args)}

    async def do_seen(self, name: str, text: str = "", since: int = 0) -> Any:
        return [{"name": name, "args": _plain(event.args)} for event in self._fitting(name, text, since)]

    async def do_meets(self, identities: list[str]) -> None:
        await self._client.meets(*identities)

    async def do_people(self) -> Any:
        return [
            {
                "identity": who.identity, "metadata": who.metadata, "attributes": who.attributes, "name": who.name,
                "tracks": [
                    {"name": pub.name, "muted": pub.muted, "subscribed": pub.subscribed}
                    for pub in who.track_publications.values()
                ],
            }
            for who in self._client.room.remote_participants.values()
        ]  # fmt: skip

    async def do_publish_tone(self, frequency: float) -> None:
        self._published["tone"] = await self._client.publish_tone(frequency)

    async def do_publish_canvas(self, left: str, right: str, size: Any = (320, 180), options: Any = None) -> None:
        self._published["canvas"] = await self._client.publish_picture(
            _rgb(left), _rgb(right), "canvas", size=tuple(size), simulcast=bool((options or {}).get("simulcast"))
        )

    async def do_mute(self, name: str) -> None:
        self._published[name].track.mute()

    async def do_unmute(self, name: str) -> None:
        self._published[name].track.unmute()

    async def do_unpublish(self, name: str) -> None:
        await self._published.pop(name).unpublish(self._client)

    async def _on_newest(self, identity: str, name: str, look: Callable[[rtc.Track], Awaitable[None]]) -> None:
        """Looks at the newest subscribed track of that name, at the next one when a reconnect has replaced it."""
        await self._client.track(identity, name)
        where = (identity, name)
        while True:
            events = self._client.seen("track_subscribed", lambda _, pub, who: (who.identity, pub.name) == where)
            try:
                return await look(events[-1].args[0])
            except AssertionError:
                continue

    async def do_frequency(self, identity: str, name: str, wanted: float) -> None:
        async with asyncio.timeout(LIMIT):
            await self._on_newest(identity, name, lambda track: hears_tone(track, wanted, limit=3))

    async def do_colours(self, identity: str, name: str, left: Any, right: Any) -> None:
        async with asyncio.timeout(LIMIT):
            await self._on_newest(identity, name, lambda track: sees_colours(track, left, right, limit=3))

    async def do_publish_data(self, text: str, options: dict[str, Any]) -> None:
        await self._client.local.publish_data(text, **options)

    async def do_perform_rpc(self, identity: str, method: str, payload: str) -> Any:
        return await self._client.local.perform_rpc(destination_identity=identity, method=method, payload=payload)

    async def do_serve_rpc(self, method: str) -> None:
        async def answer(call: rtc.RpcInvocationData) -> str:
            return f"{call.caller_identity}:{len(call.payload)}:{call.payload[::-1]}"

        self._client.local.register_rpc_method(method, answer)

    async def do_send_text(self, text: str, options: dict[str, Any]) -> None:
        await self._client.local.send_text(text, topic=options["topic"])

    async def do_send_bytes(self, length: int, topic: str) -> str:
        content = noise(length)
        await self._client.local.send_bytes(content, name="blob", topic=topic)
        return hashlib.sha256(content).hexdigest()

    async def do_listen_streams(self, topic: str) -> None:
        listen_streams(self._client, topic)

    async def do_set_metadata(self, text: str) -> None:
        await self._client.local.set_metadata(text)

    async def do_set_name(self, text: str) -> None:
        await self._client.local.set_name(text)

    async def do_set_attributes(self, attributes: dict[str, str]) -> None:
        await self._client.local.set_attributes(attributes)

    async def do_path(self, identity: str, name: str) -> str | None:
        """Of the transport that carries media here: "udp", "tcp"."""
        stats = await self._client.room.get_rtc_stats()
        entries = stats.subscriber_stats or stats.publisher_stats
        selected = {e.transport.transport.selected_candidate_pair_id for e in entries if e.HasField("transport")}
        pairs = [e.candidate_pair for e in entries if e.HasField("candidate_pair")]
        mine = {pair.candidate_pair.local_candidate_id for pair in pairs if pair.rtc.id in selected}
        found = [e.local_candidate for e in entries if e.HasField("local_candidate")]
        return next((entry.candidate.protocol for entry in found if entry.rtc.id in mine), None)

    async def do_simulate(self, scenario: str) -> None:
        await self._client.room.simulate_scenario(PYTHON_SCENARIOS[scenario])

    async def do_scenarios(self) -> Any:
        return {"offered": sorted(Kind.values()), "sent": sorted(PYTHON_SCENARIOS.values())}


def listen_streams(client: Client, topic: str) -> None:
    """Streams on the topic turn up as events text_stream [sender, text] and byte_stream [sender, sha256, name]."""

    def add(name: str, *args: Any) -> None:
        client._record(name, *args)

    async def text(reader: rtc.TextStreamReader, sender: str) -> None:
        add("text_stream", sender, await reader.read_all())

    async def content(reader: rtc.ByteStreamReader, sender: str) -> None:
        digest = hashlib.sha256()
        async for chunk in reader:
            digest.update(chunk)
        add("byte_stream", sender, digest.hexdigest(), reader.info.name)

    client.room.register_text_stream_handler(topic, lambda reader, sender: client.spawn(text(reader, sender)))
    client.room.register_byte_stream_handler(topic, lambda reader, sender: client.spawn(content(reader, sender)))
