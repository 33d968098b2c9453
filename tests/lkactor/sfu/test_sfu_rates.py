"""What a track offers: bits and frames per second by layer, measured through the forwarder."""

from itertools import pairwise

import pytest
from support.dependency import KeyedSvc
from support.media import THREE_LAYERS, Sink, VideoSource, forwarder_for, video_format, video_leg

from lkactor.sdp import Codec
from lkactor.sfu.rates import Offer, RateMeter
from lkactor.sfu.receiver import LIVE_FOR, LayerReceiver
from lkactor.wire.rtp import build_rtp, parse_rtp

AV1 = Codec("video/av1", 35, 90000, feedback=("nack", "nack pli"), rtx_payload_type=36)
H264 = Codec("video/h264", 96, 90000, feedback=("nack", "nack pli"), rtx_payload_type=97)
DD_IN = 7


def run(forwarder, layers, seconds, *, start=0.0, fps=32):
    """`layers`: (layer, source, tids, packets per frame); a whole number of frames a second, looked at as it asks."""
    frames = int(seconds * fps)
    for number in range(frames):
        now = start + number / fps
        for layer, source, tids, packets in layers:
            forwarder.receive(layer, source.frame(now, key=number == 0, packets=packets, tid=tids[number % 4]), now)
        forwarder.handle_timeout(now)
    return start + seconds


def with_leg(**changes):
    forwarder, _ = forwarder_for(video_format(**changes))
    leg = video_leg(Sink())
    forwarder.add_leg(leg, 0.0)
    return forwarder, leg


def test_simulcast_with_frame_rates():
    forwarder, leg = with_leg()
    assert leg.offer.rates == ()
    run(forwarder, [(0, VideoSource(1), (0, 2, 1, 2), 1), (1, VideoSource(2), (0, 0, 0, 0), 4)], 4.0)
    rates, frames = leg.offer.rates, leg.offer.frames
    size = len(VideoSource(1).frame(0.0, packets=1)[0].data) * 8
    assert [pytest.approx(32 * size * share, rel=0.1) for share in (0.25, 0.5, 1.0)] == list(rates[0][:3])
    assert rates[0][3] == 0
    assert rates[1] == (pytest.approx(4 * 32 * size, rel=0.1), 0, 0, 0)
    assert rates[2] == (0, 0, 0, 0)
    assert frames[0] == (pytest.approx(8, rel=0.15), pytest.approx(16, rel=0.15), pytest.approx(32, rel=0.15))
    assert frames[1] == (pytest.approx(32, rel=0.15),)
    assert frames[2] == ()


def test_a_layer_that_ends_offers_nothing_and_one_that_comes_back_is_known_at_once():
    forwarder, leg = with_leg()
    low, high = VideoSource(1), VideoSource(2)
    now = run(forwarder, [(0, low, (0,) * 4, 1), (1, high, (0,) * 4, 3)], 3.0)
    before = leg.offer.rates[1][0]
    now = run(forwarder, [(0, low, (0,) * 4, 1)], LIVE_FOR + 1.5, start=now)
    assert leg.offer.rates[1] == (0, 0, 0, 0)
    run(forwarder, [(0, low, (0,) * 4, 1), (1, high, (0,) * 4, 3)], 1.2, start=now)
    assert leg.offer.rates[1][0] == pytest.approx(before, rel=0.3)


def test_codecs_that_say_nothing_of_layers_count_frames_by_their_markers():
    forwarder, leg = with_leg(codecs=(H264,))
    run(forwarder, [(0, VideoSource(1), (0,) * 4, 3)], 3.0)
    assert leg.offer.frames[0] == (pytest.approx(32, rel=0.15),)
    assert leg.offer.rates[0][0] > 0 == leg.offer.rates[0][1]


def test_layers_inside_a_stream_are_cumulative():
    forwarder, leg = with_leg(codecs=(AV1,), simulcast=False, dependency_id=DD_IN)
    pictures = KeyedSvc()
    sequence = 100
    for number in range(120):
        now = number / 30
        made = []
        for descriptor in pictures.picture(key=number == 0):
            payload, extensions = b"\x18" + bytes(200), {DD_IN: descriptor}
            data = build_rtp(payload_type=35, sequence=sequence, timestamp=3000 * number, ssrc=5, payload=payload,
                             extensions=extensions)  # fmt: skip
            sequence += 1
            made.append(parse_rtp(data, now))
        forwarder.receive(0, made, now)
        forwarder.handle_timeout(now)
    rates = leg.offer.rates
    assert len(rates) == 3
    assert all(lower[2] < upper[2] for lower, upper in pairwise(rates))
    assert all(row[0] < row[1] < row[2] for row in rates)
    assert leg.offer.frames[2] == tuple(pytest.approx(fps, rel=0.15) for fps in (7.5, 15, 30))


@pytest.mark.parametrize(
    ("fps", "expected"), [(0, 3), (5, 0), (8, 0), (9, 1), (15, 1), (16, 1), (17, 3), (30, 3), (60, 3)]
)
def test_the_first_temporal_layer_that_is_fast_enough(fps, expected):
    offer = Offer(frames=((), (7.5, 15.0, 30.0)))
    assert offer.temporal_for(fps, 1, 3) == expected
    assert offer.temporal_for(fps, 0, 3) == 3
    assert offer.temporal_for(fps, 2, 3) == 3


def test_a_wish_of_frames_per_second_is_served_when_the_layers_are_known():
    forwarder, leg = with_leg()
    forwarder.set_wanted(leg, 2, 0, 0, 0.0, 15)
    assert leg.target_temporal == 3
    run(forwarder, [(0, VideoSource(1), (0, 2, 1, 2), 1), (2, VideoSource(3), (0, 2, 1, 2), 1)], 3.0)
    assert leg.target_temporal == leg.wanted_temporal == 1
    forwarder.set_wanted(leg, 2, 0, 0, 3.0, 30)
    assert leg.target_temporal == 3


def test_a_screen_share_is_measured_over_longer():
    meter, usual = RateMeter(screen=True), RateMeter(screen=False)
    for second in range(6):
        receivers = []
        for _ in range(2):
            receiver = LayerReceiver(90000, 64)
            receiver.bytes, receiver.last_arrival = 100_000 * (second >= 3), float(second)
            receivers.append(receiver)
        meter.measure(receivers[:1], float(second), layered=False)
        usual.measure(receivers[1:], float(second), layered=False)
    assert meter.rates[0][0] == 200_000
    assert usual.rates[0][0] == 1


def test_who_is_told():
    forwarder, leg = with_leg(screen=True)
    assert (leg.offer.screen, leg.offer.multiple, leg.offer.muted) == (True, True, False)
    forwarder.set_muted(True, 0.0)
    assert leg.offer.muted
    forwarder, leg = with_leg(layers=THREE_LAYERS[:1])
    assert not leg.offer.multiple
