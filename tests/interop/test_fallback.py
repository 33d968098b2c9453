"""Networks that stop UDP, or everything but TURN over TLS: how stock clients get in, and how they are steered when
their connection dies under them (livekit-media 1.3). The server's own firewall stands in for the network's."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from livekit.rtc import SimulateScenarioKind as Kind
from support.browser import Browser, Page, missing
from support.interop import BLUE, MARKS, RED, Client, eventually, hears_tone, party, run, sees_colours
from support.turn import turn_server

from lkactor.testing import LkServer

pytestmark = MARKS

WEB = Path(__file__).parent / "web"
PLAIN = {"videoCodec": "vp8", "simulcast": False}


@pytest.fixture
def own_server() -> Iterator[LkServer]:
    """One of its own: its network is about to be broken."""
    with LkServer() as own:
        yield own
        print(*own.events(), sep="\n")


@pytest.fixture(scope="module")
def trusting() -> Iterator[Browser]:
    """A browser that takes the test's certificate."""
    reason = missing(WEB)
    if reason:
        pytest.skip(reason)
    with Browser(WEB, extra_flags=("--ignore-certificate-errors",)) as chromium:
        yield chromium


async def enter(server: LkServer, page: Page, identity: str, single_pc: bool) -> None:
    token = server.token(identity=identity, room="r")
    await page.call("connect", server.url, token, {"singlePeerConnection": single_pc})


def preferences(server: LkServer, identity: str) -> list[str]:
    """The kinds of path that the server has sent this client to, in order."""
    events = [entry for entry in server.events("r") if (entry.participant, entry.event) == (identity, "ice.preference")]
    return [entry.detail for entry in events]


def steps(server: LkServer, identity: str) -> list[tuple[str, str]]:
    """(connection, what it came up over or was moved to), in order: `("publisher", "tcp")`. Of the latest session."""
    found: list[tuple[str, str]] = []
    for entry in server.events("r"):
        connection, _, what = entry.event.partition(".")
        detail = entry.detail.partition(" over ")[2] if what == "connected" else entry.detail
        if entry.participant == identity and what == "joined":
            found.clear()
        if entry.participant == identity and what in ("connected", "path") and detail:
            found.append((connection, detail.partition(" ")[0]))
    return found


def paths(server: LkServer, identity: str) -> list[str]:
    """All that the connections of this client went by, in order."""
    return [path for _, path in steps(server, identity)]


async def both_ways(page: Page, pat: Client) -> None:
    """Sound and pictures from the page to `pat` and back."""
    await pat.publish_tone(440)
    await pat.publish_picture(RED, BLUE)
    await page.call("publishTone", 1000)
    await page.call("publishCanvas", "#dc1e1e", "#1e1edc", [320, 180], PLAIN)
    await page.call("frequency", "pat", "tone", 440)
    await page.call("colours", "pat", "picture", RED, BLUE)
    await hears_tone(await pat.track("web", "tone"), 1000)
    await sees_colours(await pat.track("web", "canvas"), RED, BLUE)


async def fresh_colours(viewer: Client, identity: str, name: str) -> None:
    """The picture moves on the newest track of that name, whichever the client's way back has left in place."""

    async def seen() -> bool:
        events = viewer.seen("track_subscribed", lambda _, pub, who: (who.identity, pub.name) == (identity, name))
        try:
            await sees_colours(events[-1].args[0], RED, BLUE, limit=5)
        except AssertionError:
            return False
        return True

    await eventually(seen, f"{name} of {identity} after coming back", limit=60)


@pytest.mark.browser
def test_no_udp_at_all_is_a_call_by_tcp(own_server: LkServer, single_pc: bool, trusting: Browser) -> None:
    server = own_server

    async def test() -> None:
        async with party(server, "r", single_pc) as guests, trusting.pages() as (web,):
            pat = await guests.join("pat")
            await enter(server, web, "web", single_pc)
            await both_ways(web, pat)
            assert await web.call("selectedProtocol", "pat", "picture") == "tcp"

    server.block(udp=True)
    run(test)
    assert set(paths(server, "pat")) == set(paths(server, "web")) == {"tcp"}


@pytest.mark.browser
def test_nothing_but_turn_over_tls(tmp_path: Path, single_pc: bool, trusting: Browser) -> None:
    async def test() -> None:
        async with trusting.pages(2) as (ann, ben):
            await asyncio.gather(enter(server, ann, "ann", single_pc), enter(server, ben, "ben", single_pc))
            await ann.call("publishTone", 440)
            await ann.call("publishCanvas", "#dc1e1e", "#1e1edc", [320, 180], PLAIN)
            await ben.call("frequency", "ann", "tone", 440)
            await ben.call("colours", "ann", "canvas", RED, BLUE)
            assert await ben.call("selectedProtocol", "ann", "canvas") == "relay/tls"

    with turn_server(tmp_path, udp=False) as server:
        server.block(udp=True, tcp=True)
        run(test)


def test_nothing_but_turn_over_udp_from_python(tmp_path: Path, single_pc: bool) -> None:
    async def test() -> None:
        async with party(server, "r", single_pc) as guests:
            ann, ben = await guests.meeting("ann", "ben")
            await ann.publish_tone(440)
            await ann.publish_picture(RED, BLUE)
            await hears_tone(await ben.track("ann", "tone"), 440)
            await sees_colours(await ben.track("ann", "picture"), RED, BLUE)

    with turn_server(tmp_path, tls=False) as server:
        server.block(udp=True, tcp=True)
        run(test)
        assert server.counters().get("turn.relayed", 0) > 0


@pytest.mark.browser
def test_udp_that_dies_is_a_call_by_tcp_and_then_by_tls(tmp_path: Path, single_pc: bool, trusting: Browser) -> None:
    """The page comes back by itself each time, in the same session, and is told where to go."""

    async def test() -> None:
        async with trusting.pages(2) as (ann, ben):
            await asyncio.gather(enter(server, ann, "ann", single_pc), enter(server, ben, "ben", single_pc))
            await ann.call("publishTone", 440)
            await ann.call("publishCanvas", "#dc1e1e", "#1e1edc", [320, 180], PLAIN)
            await ben.call("colours", "ann", "canvas", RED, BLUE)
            assert await ben.call("selectedProtocol", "ann", "canvas") == "udp"
            for step, path in ({"udp": True}, "tcp"), ({"udp": True, "tcp": True}, "relay/tls"):
                server.block(**step)
                for page in (ann, ben):
                    await page.call("onPath", "ann", "canvas", path)
                await ben.call("framesAdvance", "ann", "canvas")
                await ben.call("soundAdvances", "ann", "tone")
            for page in (ann, ben):
                assert not await page.call("seen", "disconnected")

    with turn_server(tmp_path, udp=False) as server:
        run(test, 200)
        for identity in ("ann", "ben"):
            # Chromium may have kept a pair over TCP, and need no telling.
            assert preferences(server, identity) in (["tcp: udp failed", "tls: tcp failed"], ["tls: tcp failed"])


def test_python_whose_udp_dies_goes_on_by_tcp(own_server: LkServer, single_pc: bool) -> None:
    """By one of three ways, as it falls out between its ICE and ours: it moves to TCP by itself after four seconds and
    tells nobody, it resumes, or it starts over."""
    server = own_server

    async def all_by_tcp() -> bool:
        return all(set(dict(steps(server, identity)).values()) == {"tcp"} for identity in ("ann", "ben"))

    async def test() -> None:
        async with party(server, "r", single_pc) as guests:
            ann, ben = await guests.meeting("ann", "ben")
            await ann.publish_picture(RED, BLUE)
            await sees_colours(await ben.track("ann", "picture"), RED, BLUE)
            server.block(udp=True)
            await eventually(all_by_tcp, "every connection by TCP", limit=60)
            await fresh_colours(ben, "ann", "picture")
            await ben.meets("ann")
            await ann.meets("ben")
            await ben.local.publish_data(b"still there?", topic="q")
            await ann.event("data_received", lambda packet: packet.data == b"still there?")
            assert not [client.identity for client in (ann, ben) if client.seen("disconnected")]

    run(test, 150)
    for identity in ("ann", "ben"):
        # A client that was there first needs no telling.
        assert set(preferences(server, identity)) <= {"tcp: udp failed"}


def test_forced_tcp(single_pc: bool) -> None:
    async def test() -> None:
        async with party(server, "r", single_pc) as guests:
            ann, ben = await guests.meeting("ann", "ben")
            await ann.publish_tone(440)
            await hears_tone(await ben.track("ann", "tone"), 440)

    with LkServer("rtc: {force_tcp: true}") as server:
        run(test)
        assert set(paths(server, "ann")) == set(paths(server, "ben")) == {"tcp"}


# -- SimulateScenario: switch_candidate_protocol


@pytest.mark.browser
def test_page_asks_for_tls_and_for_udp_again(tmp_path: Path, single_pc: bool, trusting: Browser) -> None:
    """The client starts over by itself; the server has to remember what it wanted."""

    async def test() -> None:
        async with trusting.pages(2) as (ann, ben):
            await asyncio.gather(enter(server, ann, "ann", single_pc), enter(server, ben, "ben", single_pc))
            await ann.call("publishCanvas", "#dc1e1e", "#1e1edc", [320, 180], PLAIN)
            await ben.call("colours", "ann", "canvas", RED, BLUE)
            assert await ben.call("selectedProtocol", "ann", "canvas") == "udp"
            mark = await ben.call("mark")
            await ben.call("simulate", "force-tls")
            await ben.call("event", "reconnected", "", mark, 40000)
            await ben.call("onPath", "ann", "canvas", "relay/tls")
            await ben.call("framesAdvance", "ann", "canvas")

    with turn_server(tmp_path) as server:
        run(test)
        assert preferences(server, "ben") == ["tls: asked for"]
        assert preferences(server, "ann") == []


@pytest.mark.parametrize(
    ("kind", "preference", "path"),
    [(Kind.SIMULATE_FORCE_TCP, "tcp", "tcp"), (Kind.SIMULATE_FORCE_TLS, "tls", "relay")],
    ids=["tcp", "tls"],
)
def test_python_asks_for_another_path(
    tmp_path: Path, single_pc: bool, kind: "Kind.ValueType", preference: str, path: str
) -> None:
    """The SDK takes no certificate of a test's: TURN over UDP is what this server has to relay by."""

    async def test() -> None:
        async with party(server, "r", single_pc) as guests:
            ann, ben = await guests.meeting("ann", "ben")
            await ben.publish_tone(1000)
            await hears_tone(await ann.track("ben", "tone"), 1000)
            mark = ann.mark()
            await ann.room.simulate_scenario(kind)
            await ann.event("reconnected", since=mark, limit=40)
            await hears_tone(await ann.track("ben", "tone", since=mark), 1000)

    with turn_server(tmp_path, tls=False) as server:
        run(test)
        assert preferences(server, "ann") == [f"{preference}: asked for"]
        if path == "tcp":
            assert paths(server, "ann")[-1] == "tcp"
        else:
            assert server.counters().get("turn.relayed", 0) > 0
