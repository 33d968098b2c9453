"""How long subscribers hold video back, and which packets say so (livekit-media 4.10)."""

import pytest
from support.media import Sink, VideoSource, forwarder_for, video_format, video_leg

from lkactor.sfu.playout import PlayoutDelay
from lkactor.wire.rtcp import ReportBlock
from lkactor.wire.rtp import unwrap_rtx

NUMBER, SEND_TIME = 4, 3


def limits(element):
    """(id, least, most) of an element, in ms."""
    return element >> 28, (element >> 12 & 0xFFF) * 10, (element & 0xFFF) * 10


class Leg:
    """The controller alone, with a report of one packet more each second."""

    def __init__(self, minimum=0, maximum=0):
        self.delay = PlayoutDelay(minimum, maximum)
        self.delay.negotiated(NUMBER, None)
        self.sent, self.nacks, self.now = 65500, 0, 0.0

    def report(self, jitter=0, *, after=1.0, packets=100, nacks=0, seen=True):
        """Packets go out, and the report is of them, or of none of them."""
        self.now += after
        before, self.sent = self.sent, self.sent + packets
        self.nacks += nacks
        self.delay.reported(self.sent if seen else before, jitter, self.nacks, self.sent & 0xFFFF, self.now)
        return self.delay.delay


@pytest.mark.parametrize(
    ("asked", "written"),
    [
        ((100, 2000), (100, 2000)),
        ((100, 0), (100, 10_000)),
        ((0, 500), (0, 500)),
        ((0, 0), (0, 0)),
        ((109, 2009), (100, 2000)),
        ((0, 1 << 31), (0, 40950)),
        ((1 << 31, 0), (10_000, 10_000)),
        ((1 << 31, 1 << 31), (40950, 40950)),
        ((700, 300), (300, 300)),
        ((-5, -5), (0, 0)),
    ],
)
def test_what_is_asked_for_is_written_within_what_can_be(asked, written):
    assert limits(Leg(*asked).delay.element) == (NUMBER, *written)


def test_without_the_extension_nothing_is_written():
    delay = PlayoutDelay(100, 0)
    assert delay.element == 0
    delay.negotiated(NUMBER, None)
    assert delay.element
    delay.negotiated(0, 17)
    assert delay.element == 0


def test_it_is_written_until_a_report_is_of_a_packet_that_had_it():
    leg = Leg(100)
    assert leg.delay.element
    leg.report()
    assert leg.delay.element == 0


def test_a_new_id_is_announced_anew_and_the_same_one_is_not():
    leg = Leg(100)
    leg.report()
    leg.delay.negotiated(NUMBER, leg.sent & 0xFFFF)
    assert leg.delay.element == 0
    leg.delay.negotiated(9, leg.sent & 0xFFFF)
    assert limits(leg.delay.element) == (9, 100, 10_000)
    leg.report(seen=False)
    assert leg.delay.element
    leg.report()
    assert leg.delay.element == 0


def test_a_change_is_announced_until_the_receiver_is_past_it():
    leg = Leg(0, 1000)
    assert leg.report(jitter=3) == 30
    first = leg.sent + 1
    assert limits(leg.delay.element) == (NUMBER, 30, 1000)
    for highest in (first - 100, first - 1, first - 2 + 65536):  # The last one is a cycle further, and still before it.
        leg.delay.reported(highest, 3, 0, first + 50 & 0xFFFF, leg.now)
        assert leg.delay.element
    leg.delay.reported(first, 3, 0, first + 50 & 0xFFFF, leg.now)
    assert leg.delay.element == 0


def test_ten_times_the_jitter_at_no_more_than_80_ms_a_second():
    leg = Leg(0, 10_000)
    assert [leg.report(jitter=20) for _ in range(4)] == [80, 160, 200, 200]
    assert leg.report(jitter=0, after=0.5) == 120, "time since the last change, up to a second of it, counts"
    assert leg.report(jitter=0, after=0.5) == 80
    assert leg.report(jitter=0, after=9) == 0


def test_the_limits_hold():
    leg = Leg(100, 150)
    assert [leg.report(jitter=1000) for _ in range(3)] == [150, 150, 150]
    assert [leg.report(jitter=0) for _ in range(2)] == [100, 100]


def test_a_change_too_small_to_be_written_is_not_announced():
    leg = Leg(100, 1000)
    leg.report(jitter=11)
    leg.report(jitter=11)
    assert leg.delay.element == 0
    delay = leg.delay.delay
    leg.report(jitter=11, nacks=62)
    assert (leg.delay.delay, leg.delay.element) == (delay + 4, 0)


@pytest.mark.parametrize(("share", "delay"), [(60, 50), (61, 52), (90, 110), (100, 130)])
def test_nacks_above_sixty_per_cent_cost_two_ms_each(share, delay):
    leg = Leg(0, 10_000)
    leg.report(jitter=5)
    assert leg.report(jitter=5, nacks=share) == delay
    assert leg.report(jitter=5) == 50, "of the last report only"


def test_of_a_report_without_anything_new_no_share_is_taken():
    leg = Leg(0, 10_000)
    leg.report(jitter=5)
    assert leg.report(jitter=5, packets=0, nacks=50) == 50


# -- in the packets


@pytest.fixture(params=[0, SEND_TIME], ids=["alone", "beside the send time"])
def stage(request):
    return Stage(send_time=request.param)


class Stage:
    def __init__(self, minimum=100, maximum=2000, send_time=0, **changes):
        self.forwarder, _ = forwarder_for(video_format(**changes))
        self.sink = Sink()
        self.leg = leg = video_leg(self.sink)
        leg.abs_send_time_id = send_time
        leg.playout = PlayoutDelay(minimum, maximum)
        leg.playout.negotiated(NUMBER, leg.last_sequence)
        leg.playout_delay = leg.playout.element
        self.forwarder.add_leg(leg, 0.0)
        self.source, self.now = VideoSource(5, sequence=65530), 0.0

    def send(self, *, key=False):
        self.now += 0.033
        self.forwarder.receive(0, self.source.frame(self.now, key=key), self.now)
        return self.sink.take()

    def report(self, highest, jitter=0):
        self.now += 1.0
        self.forwarder.on_report_block(self.leg, ReportBlock(self.leg.ssrc, 0, 0, highest, jitter * 90, 0, 0), self.now)


def delays(packets):
    return [packet.extension(NUMBER) for packet in packets]


SAID = (10 << 12 | 200).to_bytes(3, "big")


def test_packets_carry_it_until_it_is_acknowledged(stage):
    got = [*stage.send(key=True), *stage.send()]
    assert delays(got) == [SAID] * 4
    assert all(len(packet.payload) > 20 for packet in got)
    times = [packet.extension(SEND_TIME) for packet in got]
    assert all(time is not None for time in times) if stage.leg.abs_send_time_id else times == [None] * 4
    stage.report(got[1].sequence)
    after = stage.send()
    assert delays(after) == [None, None]
    assert [packet.extension(SEND_TIME) is not None for packet in after] == [bool(stage.leg.abs_send_time_id)] * 2


def test_a_worse_network_is_announced_in_the_packets_that_follow(stage):
    stage.send(key=True)
    stage.report(stage.leg.munger.last_sequence, jitter=50)
    (first, _) = stage.send()
    assert delays([first]) == [(18 << 12 | 200).to_bytes(3, "big")]
    stage.report((first.sequence - 1) & 0xFFFF, jitter=18)
    assert delays(stage.send()) == delays([first]) * 2, "the report is of a packet without it"
    stage.report(first.sequence, jitter=18)
    assert delays(stage.send()) == [None, None]


def test_the_jitter_of_a_screen_says_nothing():
    stage = Stage(screen=True)
    stage.send(key=True)
    stage.report(stage.leg.munger.last_sequence, jitter=50)
    assert delays(stage.send()) == [None, None]
    assert stage.leg.playout.delay == 100


def test_retransmissions_and_padding(stage):
    (first, _) = stage.send(key=True)
    stage.forwarder.on_nack(stage.leg, [first.sequence], stage.now + 1)
    (again,) = stage.sink.take()
    assert delays([again]) == [SAID]
    inner = unwrap_rtx(again, payload_type=100, ssrc=stage.leg.ssrc)
    assert (inner.sequence, bytes(inner.payload)) == (first.sequence, bytes(first.payload))
    stage.report(first.sequence)
    stage.forwarder.on_nack(stage.leg, [first.sequence], stage.now + 1)
    stage.forwarder.on_probe(stage.leg, 2000, stage.now + 1)
    later = stage.sink.take()
    assert len(later) > 2 and delays(later) == [None] * len(later)


def test_a_leg_that_asks_for_nothing_is_as_before():
    stage = Stage()
    stage.leg.playout, stage.leg.playout_delay = None, 0
    stage.send(key=True)
    stage.report(stage.leg.munger.last_sequence, jitter=50)
    assert [packet.extension_profile for packet in stage.send()] == [0, 0]
