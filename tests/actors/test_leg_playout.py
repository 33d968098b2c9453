"""A leg of a room that asks for a playout delay: what was negotiated is what its packets say."""

from __future__ import annotations

import random
from typing import Any

import pytest
from support.media import Bench, Sink, plane  # noqa: F401

from actors.legs import LegTable
from actors.messages.transport import OutgoingTrack
from lkactor.config import PlayoutDelayConfig
from lkactor.sdp import Codec, SendMedia
from lkactor.wire.extensions import ABS_SEND_TIME, PLAYOUT_DELAY
from lkactor.wire.rtcp import ReportBlock

pytestmark = pytest.mark.usefixtures("plane")
VP8 = Codec("video/vp8", 100, 90000)
OPUS = Codec("audio/opus", 109, 48000, 2)
ASKED = PlayoutDelayConfig(True, 100, 2000)


def table(asked: PlayoutDelayConfig | None) -> LegTable:
    sink: Any = Sink()
    sink.ready = False
    nobody: Any = None
    legs = LegTable(
        subscriber="PA_1", egress=sink, owner=nobody, rng=random.Random(1), plane=Bench.plane, playout_delay=asked
    )
    legs.set_wanted([track("TR_V", "video", ("video/vp8", "", 96)), track("TR_A", "audio", ("audio/opus", "", 111))])
    return legs


def track(sid: str, kind: str, codec: tuple[str, str, int]) -> OutgoingTrack:
    nobody: Any = None
    return OutgoingTrack(sid, f"PA_2|{sid}", kind, (codec,), (codec[0],), False, False, nobody)


def negotiate(legs: LegTable, number: int) -> list[int]:
    """The elements that the packets of both legs carry, video first."""
    extensions = {ABS_SEND_TIME: 3} | ({PLAYOUT_DELAY: number} if number else {})
    legs.negotiated(
        [SendMedia("TR_V", "0", (VP8,), extensions), SendMedia("TR_A", "1", (OPUS,), {PLAYOUT_DELAY: number or 1})]
    )
    return [leg.playout_delay for leg in sorted(legs.legs(), key=lambda leg: leg.kind, reverse=True)]


def test_video_says_it_under_the_negotiated_id() -> None:
    assert negotiate(table(ASKED), 9) == [9 << 28 | 2 << 24 | 10 << 12 | 200, 0]


def test_a_subscriber_that_did_not_take_it_gets_none() -> None:
    assert negotiate(table(ASKED), 0) == [0, 0]


def test_a_room_that_asks_for_nothing_says_nothing() -> None:
    legs = table(None)
    assert negotiate(legs, 9) == [0, 0]
    assert all(leg.playout is None for leg in legs.legs())


def test_what_was_acknowledged_stays_so_in_the_next_round() -> None:
    legs = table(ASKED)
    negotiate(legs, 9)
    (video,) = (leg for leg in legs.legs() if leg.kind == "video")
    assert video.playout is not None
    video.munger.start(70, 0)
    video.playout.reported(70, 0, 0, 70, 1.0)
    video.playout_delay = video.playout.element
    assert negotiate(legs, 9) == [0, 0]
    assert negotiate(legs, 4) == [4 << 28 | 2 << 24 | 10 << 12 | 200, 0]


def test_a_report_tells_the_round_trip_and_its_track_only_where_a_player_is_told_how_long_to_wait() -> None:
    told: list[Any] = []
    legs = table(ASKED)
    negotiate(legs, 9)
    setattr(legs, "feed_back", lambda leg, item: told.append(item))  # noqa: B010
    for leg in legs.legs():
        leg.report_ntp, leg.report_sent_at = 7 << 16, 1.0
        legs.on_blocks([ReportBlock(leg.ssrc, 0, 0, 5, 0, 7, 65536 // 2)], 1.6)
        assert leg.rtt == pytest.approx(0.07 + (0.1 - 0.07) / 4) and leg.report is not None
    assert [item.leg.kind for item in told] == ["video"]
    assert legs.next_timeout() is not None
