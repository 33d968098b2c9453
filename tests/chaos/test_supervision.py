"""Crashes stay inside one actor: actors are killed and made to fail in a running room of real clients.

Everyone else keeps receiving, and what died comes back as docs/architecture.md says: a track in place, a participant
and a room by the client's full reconnect.
"""

import pytest
from livekit import rtc
from support.interop import GREEN, MARKS, RED, Client, Server, hears_tone, party, run, sees_colours

pytestmark = MARKS


def path_of(server: Server, ending: str) -> str:
    """The path of the only living actor whose path ends so."""
    (path,) = [info.path for info in server.actors() if info.path.endswith(ending)]
    return path


def sid_of_track(client: Client, name: str) -> str:
    (sid,) = [sid for sid, publication in client.local.track_publications.items() if publication.name == name]
    return sid


async def reconnected(client: Client, mark: int) -> None:
    """The client went through a full reconnect and is connected again."""
    await client.until(
        lambda: (
            client.room.connection_state == rtc.ConnectionState.CONN_CONNECTED
            and bool(client.seen("reconnected", since=mark))
        ),
        "full reconnect",
        limit=40.0,
    )


@pytest.mark.parametrize("how", ["kill", "crash"])
def test_a_track_comes_back_in_place(lk_server: Server, lk_room: str, how: str) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room) as guests:
            alice, bob = await guests.pair()
            await alice.publish_tone(440)
            await alice.publish_picture(RED, GREEN)
            tone, picture = await bob.track("alice", "tone"), await bob.track("alice", "picture")
            await hears_tone(tone)
            await sees_colours(picture, RED, GREEN)
            mark = bob.mark()
            path = path_of(lk_server, sid_of_track(alice, "picture"))
            getattr(lk_server, how)(path)

            def restarted() -> bool:
                return any(info.path == path and info.incarnation > 1 for info in lk_server.actors())

            await bob.until_polled(restarted, "a second incarnation")
            # the same subscription goes on: no event tells the client of anything, and the other track never stopped
            await sees_colours(picture, RED, GREEN)
            await hears_tone(tone)
            assert not bob.seen("track_unsubscribed", since=mark)
            assert not bob.seen("track_unpublished", since=mark)

    run(test)


@pytest.mark.parametrize("how", ["kill", "crash"])
def test_a_participant_comes_back_and_nobody_else_notices(lk_server: Server, lk_room: str, how: str) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room) as guests:
            alice, bob, carol = await guests.meeting("alice", "bob", "carol")
            await alice.publish_tone(440)
            await carol.publish_tone(880)
            await hears_tone(await bob.track("carol", "tone"), 880)
            await hears_tone(await bob.track("alice", "tone"), 440)
            marks = {client: client.mark() for client in (alice, bob)}
            old = alice.local.sid
            getattr(lk_server, how)(path_of(lk_server, old))
            await reconnected(alice, marks[alice])
            # the SDK says "reconnected" a moment before it shows its new sid
            await alice.until_polled(lambda: alice.local.sid != old, "a new sid")
            await hears_tone(await bob.track("carol", "tone"), 880)
            await hears_tone(await bob.track("alice", "tone", since=marks[bob]), 440)
            assert not [e for e in bob.seen("track_unsubscribed", since=marks[bob]) if e.args[2].identity == "carol"]

    run(test)


@pytest.mark.parametrize("how", ["kill", "crash"])
def test_a_room_comes_back_and_other_rooms_go_on(lk_server: Server, lk_room: str, how: str) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room) as guests, party(lk_server, f"{lk_room}-other") as others:
            alice, bob = await guests.pair()
            dora, emil = await others.pair("dora", "emil")
            await alice.publish_tone(440)
            await dora.publish_tone(880)
            await hears_tone(await bob.track("alice", "tone"))
            heard = await emil.track("dora", "tone")
            await hears_tone(heard, 880)
            marks = {client: client.mark() for client in (alice, bob, emil)}
            path = path_of(lk_server, alice.local.sid).rpartition("/")[0]
            getattr(lk_server, how)(path)
            for client in (alice, bob):
                await reconnected(client, marks[client])
            await hears_tone(await bob.track("alice", "tone", since=marks[bob]))
            await hears_tone(heard, 880)
            assert not emil.seen("reconnecting", since=marks[emil])

    run(test)


def test_a_crash_of_a_transport_is_a_full_reconnect(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room) as guests:
            alice, bob = await guests.pair()
            await alice.publish_tone(440)
            await hears_tone(await bob.track("alice", "tone"))
            mark, heard = alice.mark(), bob.mark()
            lk_server.crash(path_of(lk_server, f"{alice.local.sid}/publisher"))
            await reconnected(alice, mark)
            await hears_tone(await bob.track("alice", "tone", since=heard))

    run(test)


def test_the_sockets_actor_restarts_under_a_call(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room) as guests:
            alice, bob = await guests.pair()
            await alice.publish_tone(440)
            tone = await bob.track("alice", "tone")
            await hears_tone(tone)
            mark = bob.mark()
            lk_server.kill("/udp")
            await hears_tone(tone)
            assert not bob.seen("reconnecting", since=mark)

    run(test)
