"""Resume and full reconnect, asked for through the SDKs' own simulateScenario; media must flow again afterwards.

Which event tells that it worked: a resume keeps the participant's sid, a full reconnect brings a new one.
"""

import asyncio
from typing import Any

import pytest
from livekit import rtc
from livekit.rtc import SimulateScenarioKind as Kind
from support.browser import Browser, Page
from support.interop import BLUE, GREEN, MARKS, RED, Client, Server, eventually, hears_tone, party, run, sees_colours

pytestmark = MARKS

PLAIN = {"videoCodec": "vp8", "simulcast": False}


async def fresh_tone(listener: Client, identity: str, frequency: float) -> None:
    """Hears the tone on the newest subscribed track, whichever the reconnect left in place."""

    def newest() -> rtc.Track:
        events = listener.seen("track_subscribed", lambda t, pub, who: (who.identity, pub.name) == (identity, "tone"))
        track: rtc.Track = events[-1].args[0]
        return track

    async def heard() -> bool:
        try:
            await hears_tone(newest(), frequency, limit=4)
        except AssertionError:
            return False
        return True

    await eventually(heard, f"tone of {identity} after reconnecting", limit=40)


@pytest.mark.parametrize(
    ("scenario", "same_sid"),
    [
        (Kind.SIMULATE_SIGNAL_RECONNECT, True),
        (Kind.SIMULATE_FULL_RECONNECT, False),
        (Kind.SIMULATE_NODE_FAILURE, False),
        (Kind.SIMULATE_MIGRATION, False),
    ],
    ids=["signal", "full", "node-failure", "migration"],
)
def test_python_comes_back(
    lk_server: Server, lk_room: str, single_pc: bool, scenario: "Kind.ValueType", same_sid: bool
) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            alice, bob = await guests.meeting("alice", "bob")
            await alice.publish_tone(440)
            await bob.publish_tone(1000)
            await hears_tone(await bob.track("alice", "tone"), 440)
            await hears_tone(await alice.track("bob", "tone"), 1000)
            before = bob.remote("alice").sid
            mark = alice.mark()
            await alice.room.simulate_scenario(scenario)
            await alice.event("reconnected", since=mark, limit=40)
            await bob.meets("alice")
            await fresh_tone(bob, "alice", 440)
            await fresh_tone(alice, "bob", 1000)
            assert (bob.remote("alice").sid == before) is same_sid
            assert not alice.seen("disconnected")
            if same_sid:
                assert not bob.seen("participant_disconnected")
            await bob.local.publish_data(b"still there?", topic="q")
            await alice.event("data_received", lambda packet: packet.data == b"still there?")
            await alice.local.publish_data(b"yes", topic="a")
            await bob.event("data_received", lambda packet: packet.data == b"yes")

    run(test)


def test_python_is_told_of_a_shutdown(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            alice, bob = await guests.meeting("alice", "bob")
            await alice.room.simulate_scenario(Kind.SIMULATE_SERVER_LEAVE)
            assert (await alice.event("disconnected")).args[0] == rtc.DisconnectReason.SERVER_SHUTDOWN
            await bob.event("participant_disconnected", lambda who: who.identity == "alice")

    run(test)


def test_python_simulated_speaker(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room) as guests:
            alice, bob = await guests.meeting("alice", "bob")
            # others are told of speakers they are subscribed to, with whatever track
            await alice.publish_picture(RED)
            await bob.track("alice", "picture")
            await alice.room.simulate_scenario(Kind.SIMULATE_SPEAKER)
            for client in (alice, bob):
                await client.event("active_speakers_changed", lambda people: [p.identity for p in people] == ["alice"])
                await client.event("active_speakers_changed", lambda people: not people)

    run(test)


def test_resume_sees_who_came_and_left(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    """What a client missed while its signalling was away reaches it with the resume."""

    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            alice, bob = await guests.meeting("alice", "bob")
            resume = asyncio.create_task(alice.room.simulate_scenario(Kind.SIMULATE_SIGNAL_RECONNECT))
            carol, _ = await asyncio.gather(guests.join("carol"), bob.close())
            await carol.publish_picture(GREEN)
            await resume
            await alice.event("reconnected", limit=40)
            await sees_colours(await alice.track("carol", "picture"), GREEN)
            await alice.until(lambda: "bob" not in alice.room.remote_participants, "bob gone")

    run(test)


async def enter(server: Server, room: str, page: Page, identity: str, single_pc: bool) -> Any:
    token = server.token(identity=identity, room=room)
    return await page.call("connect", server.url, token, {"singlePeerConnection": single_pc})


@pytest.mark.browser
@pytest.mark.parametrize(
    ("scenario", "event", "same_sid"),
    [
        ("signal-reconnect", "signalReconnecting", True),
        ("disconnect-signal-on-resume", "signalReconnecting", True),
        ("full-reconnect", "reconnecting", False),
        ("resume-reconnect", "reconnecting", False),
        ("node-failure", "reconnecting", False),
        ("migration", "reconnecting", False),
    ],
)
def test_page_comes_back(
    lk_server: Server, lk_room: str, single_pc: bool, browser: Browser, scenario: str, event: str, same_sid: bool
) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests, browser.pages() as (web,):
            pat = await guests.join("pat")
            before = await enter(lk_server, lk_room, web, "web", single_pc)
            await pat.publish_tone(440)
            await pat.publish_picture(RED, BLUE)
            await web.call("publishTone", 1000)
            await hears_tone(await pat.track("web", "tone"), 1000)
            await web.call("frequency", "pat", "tone", 440)
            mark = await web.call("mark")
            await web.call("simulate", scenario)
            await web.call("event", event, "", mark)
            await web.call("event", "reconnected", "", mark, 40000)
            await fresh_tone(pat, "web", 1000)
            await web.call("soundAdvances", "pat", "tone")
            await web.call("framesAdvance", "pat", "picture")
            await web.call("colours", "pat", "picture", RED, BLUE)
            assert ((await web.call("me"))["sid"] == before["sid"]) is same_sid
            assert not await web.call("seen", "disconnected")

    run(test)


@pytest.mark.browser
def test_page_is_told_of_a_shutdown(lk_server: Server, lk_room: str, single_pc: bool, browser: Browser) -> None:
    async def test() -> None:
        async with browser.pages() as (web,):
            await enter(lk_server, lk_room, web, "web", single_pc)
            await web.call("simulate", "server-leave")
            assert (await web.call("event", "disconnected"))["args"] == [int(rtc.DisconnectReason.SERVER_SHUTDOWN)]

    run(test)


@pytest.mark.browser
def test_page_switches_to_tcp(lk_server: Server, lk_room: str, single_pc: bool, browser: Browser) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests, browser.pages() as (web,):
            pat = await guests.join("pat")
            await enter(lk_server, lk_room, web, "web", single_pc)
            await pat.publish_picture(RED, BLUE)
            await web.call("colours", "pat", "picture", RED, BLUE)
            mark = await web.call("mark")
            await web.call("simulate", "force-tcp")
            await web.call("event", "reconnected", "", mark, 40000)
            await web.call("framesAdvance", "pat", "picture")
            assert await web.call("selectedProtocol", "pat", "picture") == "tcp"

    run(test)
