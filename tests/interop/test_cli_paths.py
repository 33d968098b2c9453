"""Our own client on every way to the server, and through outages: it resumes, or it joins again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio
from livekit.protocol import rtc
from support.interop import LIMIT, MARKS, Server
from support.made_media import decode
from support.playing import VP8, play
from support.turn import turn_server

from lkactor.client.events import Joined, Reconnected, Reconnecting, SessionEvent, TrackSubscribed
from lkactor.client.session import Session, open_session
from lkactor.testing import LkServer

pytestmark = MARKS


# -- ways, as a user types them


def recorded(server: Server, room: str, output: Path, way: str, **changes: str) -> list[dict[str, object]]:
    """`publish` and `subscribe` over one way; what was written."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LIVEKIT_")}
    keys = {"LIVEKIT_API_KEY": server.api_key, "LIVEKIT_API_SECRET": server.api_secret}
    environment = {**kept, "LIVEKIT_URL": server.url, **keys, **changes}
    command = [sys.executable, "-m", "lkactor"]
    common = ["--transport", way]
    subscriber = subprocess.Popen(
        [*command, "subscribe", room, "--identity", "sub", "-o", str(output), "--until-idle", "--json", *common],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        done = subprocess.run(
            [*command, "publish", room, "--identity", "pub", "--publish-demo", "--duration", "4", *common],
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        assert done.returncode == 0, done.stderr
        out, err = subscriber.communicate(timeout=LIMIT)
    finally:
        subscriber.kill()
        subscriber.communicate()
    assert subscriber.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()]


def paths(server: LkServer, room: str, identity: str) -> set[str]:
    """What the media of a client goes over, as the server knows it."""
    found = set()
    for entry in server.events(room):
        _, _, what = entry.event.partition(".")
        detail = entry.detail.partition(" over ")[2] if what == "connected" else entry.detail
        if entry.participant == identity and what in ("connected", "path") and detail:
            found.add(detail.partition(" ")[0])
    return found


def check(server: LkServer, room: str, written: list[dict[str, object]], over: str) -> None:
    assert sorted(str(entry["mime"]) for entry in written) == ["audio/opus", "video/vp8"]
    for entry in written:
        assert len(decode(Path(str(entry["file"])))) > 10
    for identity in ("pub", "sub"):
        assert paths(server, room, identity) == {over}, identity


@pytest.mark.parametrize("way", ["udp", "tcp", "relay-udp", "relay-tls"])
def test_media_goes_the_way_that_was_asked_for(tmp_path: Path, way: str) -> None:
    with turn_server(tmp_path) as server:
        trusted = {"SSL_CERT_FILE": str(tmp_path / "cert.pem")}
        written = recorded(server, "ways", tmp_path / "out", way, **trusted)
        check(server, "ways", written, way.partition("-")[0])


def test_auto_finds_tcp_where_udp_is_blocked(tmp_path: Path) -> None:
    with LkServer() as server:
        server.block(udp=True)
        check(server, "blocked", recorded(server, "blocked", tmp_path / "out", "auto"), "tcp")


def test_a_relay_that_is_not_there_is_named(lk_server: Server, lk_room: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lkactor", "publish", lk_room, "--publish-demo", "--transport", "relay"],
        env={**os.environ, "LIVEKIT_URL": lk_server.url, "LIVEKIT_TOKEN": lk_server.token("a", lk_room)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode != 0
    assert "names no TURN server" in done.stderr


# -- outages


class Proxy:
    """Signalling goes through it, media does not. `cut` breaks what is connected."""

    def __init__(self, target: str, nursery: trio.Nursery) -> None:
        parts = urlsplit(target)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        self._nursery = nursery
        self._cuts: list[trio.CancelScope] = []
        self.url = ""

    async def start(self) -> None:
        listeners = await self._nursery.start(partial(trio.serve_tcp, self._serve, 0, host="127.0.0.1"))
        self.url = f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}"

    def cut(self) -> None:
        cuts, self._cuts = self._cuts, []
        for scope in cuts:
            scope.cancel()

    async def _serve(self, stream: trio.SocketStream) -> None:
        with trio.CancelScope() as scope:
            self._cuts.append(scope)
            async with await trio.open_tcp_stream(self._host, self._port) as there, trio.open_nursery() as nursery:
                nursery.start_soon(self._copy, stream, there)
                await self._copy(there, stream)
                nursery.cancel_scope.cancel()

    async def _copy(self, source: trio.SocketStream, target: trio.SocketStream) -> None:
        try:
            while data := await source.receive_some():
                await target.send_all(data)
            await target.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


class Watcher:
    """What a session told, and the packets that came."""

    def __init__(self) -> None:
        self.events: list[SessionEvent] = []
        self.packets = 0

    def __call__(self, event: SessionEvent) -> None:
        self.events.append(event)
        if isinstance(event, TrackSubscribed):
            event.track.on_packet = lambda _: self._count()

    def _count(self) -> None:
        self.packets += 1

    def seen(self, kind: type[SessionEvent]) -> list[SessionEvent]:
        return [event for event in self.events if isinstance(event, kind)]


class Scene:
    """One publishes the demo, one subscribes, both through a proxy."""

    def __init__(
        self, proxies: tuple[Proxy, Proxy], sessions: tuple[Session, Session], watchers: list[Watcher]
    ) -> None:
        (self.pub_proxy, self.sub_proxy), (self.pub, self.sub) = proxies, sessions
        self.pub_saw, self.sub_saw = watchers

    async def until(self, condition: Callable[[], object], what: str) -> None:
        with trio.move_on_after(LIMIT):
            while not condition():  # noqa: ASYNC110 (three places can make it true)
                await trio.sleep(0.02)
            return
        raise AssertionError(f"never: {what}; {self.pub_saw.events[-3:]} {self.sub_saw.events[-3:]}")

    async def media_flows(self) -> None:
        begun = self.sub_saw.packets
        await self.until(lambda: self.sub_saw.packets > begun + 50, "fifty packets more")


@asynccontextmanager
async def scene(server: Server, room: str) -> AsyncIterator[Scene]:
    watchers = [Watcher(), Watcher()]
    async with trio.open_nursery() as nursery:
        proxies = (Proxy(server.url, nursery), Proxy(server.url, nursery))
        for proxy in proxies:
            await proxy.start()
        token = server.token
        async with (
            open_session(proxies[0].url, token("pub", room), on_event=watchers[0]) as pub,
            open_session(proxies[1].url, token("sub", room), on_event=watchers[1]) as sub,
        ):
            (track,) = await pub.publish([VP8])
            nursery.start_soon(play, track)
            here = Scene(proxies, (pub, sub), watchers)
            await here.media_flows()
            yield here
        nursery.cancel_scope.cancel()


def run(server: Server, room: str, test: Callable[[Scene], object]) -> None:
    async def main() -> None:
        async with scene(server, room) as here:
            await test(here)  # type: ignore[misc]

    trio.run(main)


def test_a_lost_signal_connection_is_resumed_and_media_goes_on(lk_server: Server, lk_room: str) -> None:
    async def test(here: Scene) -> None:
        who = here.pub.join.participant.sid, here.sub.join.participant.sid
        sid = next(iter(here.pub.local_tracks.values())).sid
        for proxy, saw in ((here.pub_proxy, here.pub_saw), (here.sub_proxy, here.sub_saw)):
            proxy.cut()
            await here.until(partial(saw.seen, Reconnected), "resumed")
            await here.media_flows()
            assert [event.resumed for event in saw.seen(Reconnected)] == [True]  # type: ignore[union-attr]
        assert (here.pub.join.participant.sid, here.sub.join.participant.sid) == who
        assert next(iter(here.pub.local_tracks.values())).sid == sid
        assert len(here.sub_saw.seen(TrackSubscribed)) == 1, "the track never ended"
        assert here.pub.publisher.transport.peer.ice.settled, "ICE was restarted and has a path again"

    run(lk_server, lk_room, test)


def test_who_is_told_to_reconnect_joins_again_and_publishes_again(lk_server: Server, lk_room: str) -> None:
    async def test(here: Scene) -> None:
        sid = here.pub.join.participant.sid
        here.pub.post(simulate=rtc.SimulateScenario(leave_request_full_reconnect=True))
        await here.until(lambda: len(here.sub_saw.seen(TrackSubscribed)) == 2, "the track anew")
        await here.media_flows()
        here.sub.post(simulate=rtc.SimulateScenario(leave_request_full_reconnect=True))
        await here.until(lambda: len(here.sub_saw.seen(TrackSubscribed)) == 3, "the subscription anew")
        await here.media_flows()
        assert here.pub.join.participant.sid != sid
        assert (here.pub.rejoins, here.sub.rejoins) == (1, 1)
        assert len(here.sub_saw.seen(Joined)) == 1, "an event of its own"

    run(lk_server, lk_room, test)


def test_a_participant_that_is_gone_joins_again(lk_server: Server, lk_room: str) -> None:
    async def test(here: Scene) -> None:
        here.pub.join.participant.sid = "PA_nobodyknowsme"
        here.pub_proxy.cut()
        await here.until(partial(here.pub_saw.seen, Reconnected), "back")
        await here.media_flows()
        assert [event.resumed for event in here.pub_saw.seen(Reconnected)] == [False]  # type: ignore[union-attr]

    run(lk_server, lk_room, test)


def test_who_is_removed_does_not_come_back(lk_server: Server, lk_room: str) -> None:
    async def test(here: Scene) -> None:
        await trio.to_thread.run_sync(lk_server.close_room, lk_room)  # type: ignore[attr-defined]
        await here.until(here.sub.left.is_set, "left")
        assert here.sub.reason in ("ROOM_DELETED", "ROOM_CLOSED", "SERVER_SHUTDOWN")
        assert here.sub_saw.seen(Reconnecting) == []

    run(lk_server, lk_room, test)
