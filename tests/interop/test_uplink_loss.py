"""A publisher's packets get lost on their way: both planes ask for them again, and subscribers miss nothing."""

from __future__ import annotations

import random

import pytest
import trio
from support.interop import LIMIT, MARKS
from support.playing import VP8, play

from lkactor.client.events import SessionEvent, TrackSubscribed
from lkactor.client.session import Session, open_session
from lkactor.testing import LkServer
from lkactor.wire.rtp import RtpPacket

pytestmark = MARKS

LOST_ONE_IN, ENOUGH = 8, 600
"""Packets that do not go out, and how many are to come."""


def lose_some(session: Session, numbers: set[int]) -> list[int]:
    """Of what the session publishes, once `numbers` have come, but nothing that is sent again. Returns the sequence
    numbers of what is lost, as they come."""
    transport, rng, lost = session.publisher.transport, random.Random(6), list[int]()
    send = transport.send_rtp

    def send_most(packet: bytes) -> bytes | None:
        if not numbers or transport.peer.sender is None or rng.randrange(LOST_ONE_IN):
            return send(packet)
        lost.append(int.from_bytes(packet[2:4], "big"))
        return transport.peer.sender.protect_rtp(packet)

    transport.send_rtp = send_most  # type: ignore[method-assign]
    return lost


@pytest.mark.parametrize("plane", ["auto", "python"])
def test_what_is_lost_is_sent_again(plane: str, lk_room: str) -> None:
    numbers: set[int] = set()

    def on_event(event: SessionEvent) -> None:
        if isinstance(event, TrackSubscribed):
            event.track.on_packet = note

    def note(packet: RtpPacket) -> None:
        numbers.add(packet.sequence)

    async def main(server: LkServer) -> None:
        token = server.token
        async with (
            trio.open_nursery() as nursery,
            open_session(server.url, token("pub", lk_room), on_event=lambda _: None) as pub,
            open_session(server.url, token("sub", lk_room), on_event=on_event),
        ):
            lost = lose_some(pub, numbers)
            (track,) = await pub.publish([VP8])
            nursery.start_soon(play, track, 0.01)
            with trio.fail_after(LIMIT):
                while len(numbers) < ENOUGH:  # noqa: ASYNC110 (another task adds to it)
                    await trio.sleep(0.02)
                assert len(lost) > 20
                while not set(lost[:-5]) <= numbers:  # noqa: ASYNC110
                    await trio.sleep(0.02)
            assert track.retransmitted >= len(lost) - 5
            nursery.cancel_scope.cancel()

    with LkServer(f"forwarding_plane: {plane}") as server:
        trio.run(main, server)
