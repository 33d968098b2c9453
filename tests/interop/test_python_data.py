"""Data between Python SDKs: packets, streams, RPC, data tracks, and what participants tell about themselves."""

import asyncio
import hashlib
import random
from typing import Any

import pytest
from livekit import rtc
from support.interop import LIMIT, MARKS, Client, Server, party, run

pytestmark = MARKS


def inbox(client: Client, topic: str) -> list[bytes]:
    return [event.args[0].data for event in client.seen("data_received", lambda packet: packet.topic == topic)]


def test_reliable_data_with_topic_and_sender(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            alice, bob = await guests.meeting("alice", "bob")
            await alice.local.publish_data(b"hello", reliable=True, topic="greeting")
            packet = (await bob.event("data_received")).args[0]
            assert (packet.data, packet.topic, packet.kind) == (b"hello", "greeting", rtc.DataPacketKind.KIND_RELIABLE)
            assert packet.participant.identity == "alice"
            await bob.local.publish_data("back", topic="greeting")
            assert (await alice.event("data_received")).args[0].data == b"back"

    run(test)


def test_reliable_data_keeps_its_order(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            alice, bob = await guests.meeting("alice", "bob")
            sent = [number.to_bytes(4, "big") * (1 + number % 200) for number in range(300)]
            for payload in sent:
                await alice.local.publish_data(payload, topic="numbers")
            await bob.until(lambda: len(inbox(bob, "numbers")) >= len(sent), "300 packets")
            assert inbox(bob, "numbers") == sent

    run(test)


def test_lossy_data_arrives(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            alice, bob = await guests.meeting("alice", "bob")
            sent = [f"position {number}".encode() for number in range(20)]
            for payload in sent:
                await alice.local.publish_data(payload, reliable=False, topic="game")
            await alice.local.publish_data(b"done", topic="end")
            await bob.event("data_received", lambda packet: packet.topic == "game")
            await bob.event("data_received", lambda packet: packet.topic == "end")
            assert set(inbox(bob, "game")) <= set(sent)

    run(test)


def test_large_packet(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            alice, bob = await guests.meeting("alice", "bob")
            payload = random.Random(1).randbytes(15000)
            await alice.local.publish_data(payload, topic="large")
            assert (await bob.event("data_received")).args[0].data == payload

    run(test)


def test_destinations_are_the_only_receivers(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            alice, bob, carol = await guests.meeting("alice", "bob", "carol")
            for reliable in (True, False):
                await alice.local.publish_data(
                    b"for carol", reliable=reliable, topic="secret", destination_identities=["carol"]
                )
            await alice.local.publish_data(b"for all", topic="open")
            for client in (bob, carol):
                await client.event("data_received", lambda packet: packet.topic == "open")
            assert b"for carol" in inbox(carol, "secret")
            assert inbox(bob, "secret") == []
            # the sender hears nothing of its own: a reply proves that everything before it had time to come
            await bob.local.publish_data(b"reply", topic="reply")
            await alice.event("data_received", lambda packet: packet.topic == "reply")
            assert len(alice.seen("data_received")) == 1

    run(test)


def test_no_grant_no_data(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room) as guests:
            mute = await guests.join("mute", can_publish_data=False)
            alice, bob = await guests.meeting("alice", "bob")
            await mute.meets("alice", "bob")
            try:
                await mute.local.publish_data(b"no", topic="no")
            except rtc.participant.PublishDataError:
                pass  # the SDK may refuse by itself; what counts is that nobody gets it
            await alice.local.publish_data(b"yes", topic="yes")
            await bob.event("data_received", lambda packet: packet.topic == "yes")
            assert inbox(bob, "no") == []

    run(test)


@pytest.mark.parametrize("payload", ["ping", "x" * 40_000], ids=["short", "40kB"])
def test_rpc(lk_server: Server, lk_room: str, single_pc: bool, payload: str) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            alice, bob = await guests.meeting("alice", "bob")

            async def echo(call: rtc.RpcInvocationData) -> str:
                assert call.caller_identity == "alice"
                return call.payload[::-1] + "!"

            bob.local.register_rpc_method("echo", echo)
            answer = await alice.local.perform_rpc(destination_identity="bob", method="echo", payload=payload)
            assert answer == payload[::-1] + "!"

    run(test)


def test_rpc_errors(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            alice, bob = await guests.meeting("alice", "bob")

            async def refuse(call: rtc.RpcInvocationData) -> str:
                raise rtc.RpcError(2001, "not today", "details")

            bob.local.register_rpc_method("refuse", refuse)
            with pytest.raises(rtc.RpcError) as refused:
                await alice.local.perform_rpc(destination_identity="bob", method="refuse", payload="")
            assert (refused.value.code, refused.value.message) == (2001, "not today")
            assert refused.value.data == "details"
            with pytest.raises(rtc.RpcError) as unknown:
                await alice.local.perform_rpc(destination_identity="bob", method="nothing", payload="")
            assert unknown.value.code == rtc.RpcError.ErrorCode.UNSUPPORTED_METHOD

    run(test)


async def _next_bytes(client: Client, topic: str) -> "asyncio.Future[tuple[Any, bytes, str]]":
    """A future for the next byte stream on the topic: (info, content, sender)."""
    got: asyncio.Future[tuple[Any, bytes, str]] = asyncio.get_running_loop().create_future()

    async def read(reader: rtc.ByteStreamReader, sender: str) -> None:
        content = bytearray()
        async for chunk in reader:
            content += chunk
        got.set_result((reader.info, bytes(content), sender))

    client.room.register_byte_stream_handler(topic, lambda reader, sender: client.spawn(read(reader, sender)))
    return got


@pytest.mark.parametrize("whole", [True, False], ids=["send_bytes", "stream_bytes"])
def test_byte_stream_of_a_megabyte(lk_server: Server, lk_room: str, single_pc: bool, whole: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            alice, bob = await guests.meeting("alice", "bob")
            content = random.Random(7).randbytes(1_000_000)
            got = await _next_bytes(bob, "files")
            if whole:
                await alice.local.send_bytes(content, name="blob", topic="files", mime_type="application/x-test")
            else:
                writer = await alice.local.stream_bytes(
                    "blob", total_size=len(content), mime_type="application/x-test", topic="files"
                )
                for start in range(0, len(content), 50_000):
                    await writer.write(content[start : start + 50_000])
                await writer.aclose()
            info, received, sender = await asyncio.wait_for(got, LIMIT)
            assert hashlib.sha256(received).hexdigest() == hashlib.sha256(content).hexdigest()
            assert (info.name, info.topic, info.mime_type, sender) == ("blob", "files", "application/x-test", "alice")

    run(test)


@pytest.mark.parametrize("text", ["Grüße, 世界 👋", "Übung macht den Meister. " * 4000], ids=["short", "100kB"])
def test_text_stream(lk_server: Server, lk_room: str, single_pc: bool, text: str) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            alice, bob, carol = await guests.meeting("alice", "bob", "carol")
            got: asyncio.Future[tuple[Any, str, str]] = asyncio.get_running_loop().create_future()

            async def read(reader: rtc.TextStreamReader, sender: str) -> None:
                got.set_result((reader.info, await reader.read_all(), sender))

            def open_stream(reader: rtc.TextStreamReader, sender: str) -> None:
                bob.spawn(read(reader, sender))

            for client in (bob, carol):
                client.room.register_text_stream_handler("chat", open_stream)
            await alice.local.send_text(text, topic="chat", attributes={"mood": "good"}, destination_identities=["bob"])
            info, received, sender = await asyncio.wait_for(got, LIMIT)
            assert (received, sender) == (text, "alice")
            assert info.attributes["mood"] == "good"

    run(test)


def test_data_track(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            alice, bob = await guests.meeting("alice", "bob")
            track = await alice.local.publish_data_track(name="sensor")
            remote = (await bob.event("data_track_published")).args[0]
            assert (remote.info.name, remote.publisher_identity) == ("sensor", "alice")
            stream = remote.subscribe()

            async def push() -> None:
                number = 0
                while True:
                    track.try_push(rtc.DataTrackFrame(payload=b"reading %d" % number))
                    number += 1
                    await asyncio.sleep(0.02)

            alice.background(push())
            async with asyncio.timeout(LIMIT):
                frames = [await anext(stream) for _ in range(5)]
            assert all(frame.payload.startswith(b"reading ") for frame in frames)
            stream.close()
            await track.unpublish()
            assert (await bob.event("data_track_unpublished")).args[0] == remote.info.sid

    run(test)


def test_metadata_name_and_attributes(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            alice, bob = await guests.meeting("alice", "bob", can_update_own_metadata=True)
            await alice.local.set_metadata("the first")
            await alice.local.set_name("Alice A.")
            await alice.local.set_attributes({"hand": "raised", "role": "host"})
            assert (await bob.event("participant_metadata_changed")).args[2] == "the first"
            assert (await bob.event("participant_name_changed")).args[2] == "Alice A."
            changed = (await bob.event("participant_attributes_changed")).args
            assert changed[0] == {"hand": "raised", "role": "host"}
            await alice.event("participant_attributes_changed", lambda _, who: who.identity == "alice")
            mark = bob.mark()
            await alice.local.set_attributes({"hand": ""})
            await bob.event("participant_attributes_changed", since=mark)
            # an empty value removes the attribute
            assert bob.remote("alice").attributes == {"role": "host"}
            late = await guests.join("late")
            seen = late.remote("alice")
            assert (seen.metadata, seen.name, seen.attributes) == ("the first", "Alice A.", {"role": "host"})

    run(test)


def test_metadata_without_the_grant_stays(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room) as guests:
            alice, bob = await guests.meeting("alice", "bob")
            await alice.local.set_metadata("mine")  # the Python SDK reports no refusal
            await alice.local.publish_data(b"after", topic="after")
            await bob.event("data_received")
            assert not bob.seen("participant_metadata_changed")
            assert bob.remote("alice").metadata == ""

    run(test)


def test_duplicate_identity_ends_the_first(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            first = await guests.join("alice")
            second = await guests.join("alice")
            reason = (await first.event("disconnected")).args[0]
            assert reason == rtc.DisconnectReason.DUPLICATE_IDENTITY
            assert second.room.isconnected()
            assert second.local.sid != first.local.sid
            assert not second.seen("disconnected")

    run(test)


def test_hidden_is_unseen_but_sees(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            ghost = await guests.join("ghost", hidden=True)
            alice, bob = await guests.meeting("alice", "bob")
            await ghost.meets("alice", "bob")
            await alice.local.publish_data(b"boo", topic="boo")
            await ghost.event("data_received")
            for client in (alice, bob):
                assert "ghost" not in client.room.remote_participants
                assert not client.seen("participant_connected", lambda who: who.identity == "ghost")

    run(test)


def test_leaving_is_seen(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            alice, bob = await guests.meeting("alice", "bob")
            await alice.close()
            gone = (await bob.event("participant_disconnected")).args[0]
            assert gone.identity == "alice"
            assert gone.disconnect_reason == rtc.DisconnectReason.CLIENT_INITIATED
            assert "alice" not in bob.room.remote_participants

    run(test)


def test_rejoining_under_the_same_name(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room) as guests:
            alice, bob = await guests.meeting("alice", "bob")
            old = alice.local.sid
            await alice.close()
            await bob.event("participant_disconnected")
            again = await guests.join("alice")
            assert again.local.sid != old
            await asyncio.gather(again.meets("bob"), bob.meets("alice"))
            await bob.local.publish_data(b"welcome back", topic="t")
            await again.event("data_received")

    run(test)


def test_room_sid_and_name_are_told(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room) as guests:
            alice, bob = await guests.pair()
            assert alice.room.name == lk_room
            sid = await asyncio.wait_for(alice.room.sid, LIMIT)
            assert sid.startswith("RM_")
            assert await asyncio.wait_for(bob.room.sid, LIMIT) == sid
            assert alice.local.sid.startswith("PA_")

    run(test)
