"""A room's settings and life span."""

import random
import re

import pytest
from livekit.protocol import room as room_api

from lkactor.config import Config
from lkactor.room.model import RoomModel
from lkactor.room.sids import new_sid, new_track_sid


def created(text="", **request):
    wish = room_api.CreateRoomRequest(name="r", **request)
    return RoomModel.create("r", Config.load(text), wish, now=100.0, unix_ms=1_700_000_000_123, rng=random.Random(1))


def test_the_request_wins_over_the_configuration():
    text = "room: {empty_timeout: 7, departure_timeout: 8, max_participants: 9, enabled_codecs: [{mime: audio/opus}]}"
    info = created(text, metadata="m").info(participants=2, publishers=1, recording=True)
    assert (info.empty_timeout, info.departure_timeout, info.max_participants) == (7, 8, 9)
    assert [codec.mime for codec in info.enabled_codecs] == ["audio/opus"]
    assert (info.creation_time, info.creation_time_ms) == (1_700_000_000, 1_700_000_000_123)
    assert (info.num_participants, info.num_publishers, info.active_recording, info.metadata) == (2, 1, True, "m")
    asked = created(text, empty_timeout=1, departure_timeout=2, max_participants=3)
    assert (asked.empty_timeout, asked.departure_timeout, asked.max_participants) == (1, 2, 3)


def test_a_life():
    room = created(empty_timeout=5, departure_timeout=3)
    assert room.expires_at() == 105.0
    room.joined()
    assert room.expires_at() is None
    room.emptied(200.0)
    room.emptied(300.0)
    assert room.expires_at() == 203.0
    room.joined()
    assert room.expires_at() is None


@pytest.mark.parametrize(
    ("kind", "source", "start"),
    [("video", 1, "TR_VC"), ("audio", 2, "TR_AM"), ("video", 3, "TR_VS"), ("audio", 4, "TR_As"), ("video", 0, "TR_VC"),
     ("audio", 0, "TR_AM"), ("audio", 99, "TR_AM")],
)  # fmt: skip
def test_track_sids(kind, source, start):
    assert re.fullmatch(start + "[2-9A-HJ-NP-Za-km-z]{12}", new_track_sid(kind, source, random.Random(3)))


def test_sids_differ_and_repeat_by_seed():
    rng = random.Random(1)
    assert len({new_sid("PA_", rng) for _ in range(1000)}) == 1000
    assert new_sid("PA_", random.Random(2)) == new_sid("PA_", random.Random(2))
