"""A list of rooms that is put together is the one that protobuf would have written."""

from __future__ import annotations

import pytest
from livekit.protocol import models, room

from lkactor.api import twirp
from lkactor.api.listing import ListedRoom, RoomList


def rooms(count: int) -> list[models.Room]:
    return [
        models.Room(
            sid=f"RM_{number}", name=f'a "room"\n{number} ä', metadata="m" * number * 7, empty_timeout=300,
            creation_time=1_700_000_000 + number, num_participants=number,
            enabled_codecs=[models.Codec(mime="audio/opus"), models.Codec(mime="video/vp8", fmtp_line="x")],
        )
        for number in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 2, 40])
@pytest.mark.parametrize("as_json", [False, True])
def test_as_protobuf_would_write_it(count: int, as_json: bool) -> None:
    listed = [ListedRoom(info) for info in rooms(count)]
    expected = twirp.encode(room.ListRoomsResponse(rooms=rooms(count)), as_json=as_json)
    assert twirp.encode(RoomList(listed), as_json=as_json) == expected
    assert RoomList(listed).encode(as_json=as_json) == expected


@pytest.mark.parametrize("size", [0, 100, 127, 128, 5_000, 16_383, 16_384, 3_000_000])
def test_every_size_of_a_room(size: int) -> None:
    info = models.Room(metadata="x" * size)
    (found,) = room.ListRoomsResponse.FromString(RoomList([ListedRoom(info)]).encode(as_json=False)).rooms
    assert found == info
