"""One downlink as a whole: REMB and NACKs in, limits and probes out; limits and probes at the forwarder; both together
over a channel that carries so much."""

from itertools import pairwise

import pytest
from support.media import Sink, VideoSource, audio_leg, forwarder_for, video_format, video_leg

from lkactor.sfu.allocator import NOTHING, UNLIMITED, Layer
from lkactor.sfu.congestion import PAUSED_MIN_WAIT, PROBE_OCTETS, PROBE_TICK, TICK, CongestionControl
from lkactor.sfu.leg import MAX_TEMPORAL
from lkactor.sfu.rates import Offer
from lkactor.wire.rtcp import Pli, ReportBlock
from lkactor.wire.rtp import unwrap_rtx

MBPS = 1_000_000
CAMERA = Offer(rates=((150_000, 0, 0, 0), (500_000, 0, 0, 0), (1_700_000, 0, 0, 0)), multiple=True)
REPORT = ReportBlock(1, 0, 0, 0, 0, 0, 0)


def control_for(*legs, enabled=True, allow_pause=False, now=0.0):
    control = CongestionControl(enabled=enabled, allow_pause=allow_pause, now=now)
    control.observe(legs, now)
    return control


def row(sid="TR_1", *, offer=CAMERA, ssrc=0xABC0001):
    leg = video_leg(Sink(), ssrc=ssrc)
    leg.track_id, leg.offer, leg.report, leg.abs_send_time_id = sid, offer, REPORT, 3
    leg.munger.start(5, 0)
    return leg


def apply(control):
    for leg, limit, halted in control.decisions():
        leg.limit_layer, leg.limit_temporal, leg.halted = max(limit.spatial, 0), max(limit.temporal, 0), halted
    return [(limit, halted) for _, limit, halted in control.decisions()]


def fall(control, legs, *, start=0.0, low=0.6 * MBPS, high=3 * MBPS):
    """A REMB each 200 ms, from high to low."""
    for step in range(12):
        now = start + 0.2 * step
        control.on_remb(int(high - (high - low) * step / 11), legs, now)
    return now


# -- decisions


def test_nothing_is_due_and_nothing_limited_while_nothing_is_short():
    leg = row()
    control = control_for(leg)
    assert control.on_remb(9 * MBPS, [leg], 0.0) is False
    assert control.next_timeout() is None
    assert apply(control) == [(UNLIMITED, False)]


def test_a_fall_below_the_use_limits():
    leg = row()
    control = control_for(leg)
    fall(control, [leg])
    assert apply(control) == [(Layer(1, MAX_TEMPORAL), False)]
    assert control.deficient
    assert control.next_timeout() is not None


def test_repeated_nacks_limit():
    leg = row()
    control = control_for(leg)
    control.on_remb(9 * MBPS, [leg], 0.0)
    for step in range(1, 16):
        leg.packets += 20
        leg.repeated_nacks += 10
        control.on_remb(9 * MBPS, [leg], 0.2 * step)
    assert control.deficient
    assert apply(control)[0][0] < Layer(2, 0)


def test_audio_and_single_screens_are_left_alone():
    screen = row("TR_screen", offer=Offer(rates=((800_000, 0, 0, 0),), screen=True), ssrc=0x100)
    camera, audio = row(), audio_leg(Sink())
    control = control_for(screen, camera, audio, allow_pause=True)
    control.impose(100_000, 0.0)
    assert {leg.track_id: (limit, halted) for leg, limit, halted in control.decisions()} == {
        "TR_screen": (UNLIMITED, False),
        "TR_1": (NOTHING, True),
    }


def test_switched_off_it_does_nothing():
    leg = row()
    control = control_for(leg, enabled=False)
    fall(control, [leg])
    control.impose(1, 3.0)
    assert list(control.decisions()) == []
    assert control.next_timeout() is None


def test_imposed_and_cleared():
    leg = row()
    control = control_for(leg, allow_pause=True)
    control.impose(200_000, 0.0)
    assert apply(control) == [(Layer(0, MAX_TEMPORAL), False)]
    control.impose(100_000, 0.1)
    assert apply(control) == [(NOTHING, True)]
    control.impose(0, 0.2)
    assert apply(control) == [(UNLIMITED, False)]
    assert control.next_timeout() is None


def test_a_wish_of_priority_decides_who_is_short():
    first, second = row("TR_a", ssrc=0x100), row("TR_b", ssrc=0x200)
    control = control_for(first, second)
    control.set_priority("TR_b", 9)
    control.observe([first, second], 0.0)
    control.impose(700_000, 0.0)
    assert apply(control) == [(Layer(0, MAX_TEMPORAL), False), (Layer(1, MAX_TEMPORAL), False)]
    control.set_priority("TR_b", 0)
    control.observe([first, second], 0.1)
    assert apply(control) == [(Layer(1, MAX_TEMPORAL), False), (Layer(0, MAX_TEMPORAL), False)]


def test_what_is_muted_or_unwanted_needs_nothing():
    first, second = row("TR_a", ssrc=0x100), row("TR_b", ssrc=0x200)
    control = control_for(first, second, allow_pause=True)
    control.impose(150_000, 0.0)
    assert [halted for _, halted in apply(control)] == [False, True]
    first.disabled = True
    control.observe([first, second], 0.1)
    assert [halted for _, halted in apply(control)] == [False, False]
    first.disabled = False
    second.offer = Offer(CAMERA.rates, muted=True, multiple=True)
    control.observe([first, second], 0.2)
    assert [halted for _, halted in apply(control)] == [False, False]


def test_a_limit_at_the_top_frame_rate_leaves_frames_alone():
    rates = ((60_000, 90_000, 150_000, 0), (200_000, 300_000, 500_000, 0))
    leg = row(offer=Offer(rates=rates, multiple=True))
    control = control_for(leg)
    control.impose(160_000, 0.0)
    assert apply(control) == [(Layer(0, MAX_TEMPORAL), False)]
    control.impose(310_000, 0.0)
    assert apply(control) == [(Layer(1, 1), False)]


def test_rows_that_leave_are_forgotten():
    first, second = row("TR_a", ssrc=0x100), row("TR_b", ssrc=0x200)
    control = control_for(first, second, allow_pause=True)
    fall(control, [first, second], low=0.3 * MBPS)
    assert control.deficient
    control.observe([], 3.0)
    assert list(control.decisions()) == []
    assert control.next_timeout() is None


# -- probes


def congested():
    leg = row()
    control = control_for(leg)
    now = fall(control, [leg])
    apply(control)
    return control, leg, now


def tick(control, leg, until, *, remb=None):
    """Run its clock. (when, octets) of each probe burst."""
    bursts = []
    while (at := control.next_timeout()) is not None and at <= until:
        control.observe([leg], at)
        control.handle_timeout(at)
        found = control.take_probe()
        if found is not None:
            bursts.append((at, found[1]))
            if remb is not None:
                control.on_remb(remb(at), [leg], at)
        apply(control)
    return bursts


def test_while_congested_there_is_no_probe_and_then_it_sends_what_a_step_up_needs():
    control, leg, now = congested()
    assert tick(control, leg, now + 5) == []
    for step in range(24):
        control.on_remb(600_000, [leg], now + 5 + 0.5 * step)
    bursts = tick(control, leg, now + 17)
    assert bursts
    began = bursts[0][0]
    first = [octets for at, octets in bursts if at < began + 1]
    assert min(first) >= PROBE_OCTETS
    assert sum(first) * 8 / 0.2 == pytest.approx((1_700_000 - 500_000) * 1.2, rel=0.25)
    assert {round(b - a, 6) for (a, _), (b, _) in pairwise(bursts) if b - a < 0.1} <= {PROBE_TICK}


def test_a_probe_that_finds_room_lifts_the_limit():
    control, leg, now = congested()
    for step in range(24):
        control.on_remb(600_000, [leg], now + 5 + 0.5 * step)
    grown = iter(range(700_000, 9_000_000, 300_000))
    tick(control, leg, now + 18, remb=lambda at: next(grown))
    assert apply(control) == [(UNLIMITED, False)]
    assert not control.deficient
    assert control.next_timeout() is None


def test_a_probe_that_congests_lifts_nothing_and_the_next_waits_longer():
    control, leg, now = congested()
    for step in range(24):
        control.on_remb(600_000, [leg], now + 5 + 0.5 * step)
    falling = iter(range(600_000, 0, -10_000))
    bursts = tick(control, leg, now + 27, remb=lambda at: next(falling))
    assert apply(control) == [(Layer(1, MAX_TEMPORAL), False)]
    starts = [b for (a, _), (b, _) in pairwise(bursts) if b - a > 1]
    assert starts[0] - bursts[0][0] == pytest.approx(4.5, abs=2 * TICK)
    assert starts[1] - starts[0] == pytest.approx(6.75, abs=2 * TICK)


@pytest.mark.parametrize("without", ["report", "abs_send_time_id", "rtx_payload_types"])
def test_no_probe_on_a_row_where_it_would_not_be_seen(without):
    control, leg, now = congested()
    setattr(leg, without, None if without == "report" else {} if without == "rtx_payload_types" else 0)
    for step in range(24):
        control.on_remb(600_000, [leg], now + 5 + 0.5 * step)
    assert tick(control, leg, now + 18) == []


def test_with_all_held_back_the_congestion_ends_by_itself():
    leg = row()
    control = control_for(leg, allow_pause=True)
    now = fall(control, [leg], low=50_000)
    leg.last_sent_at = now
    assert apply(control) == [(NOTHING, True)]
    bursts = tick(control, leg, now + PAUSED_MIN_WAIT + 2)
    assert bursts[0][0] > now + PAUSED_MIN_WAIT


# -- limits at the forwarder


class Camera:
    """Three layers on their way to one leg."""

    def __init__(self, *, layers=3, packets=(1, 2, 4)):
        self.forwarder, self.publisher = forwarder_for(video_format())
        self.sink = Sink()
        self.leg = video_leg(self.sink)
        self.leg.abs_send_time_id, self.leg.report = 3, REPORT
        self.packets = packets
        self.sources = [VideoSource(n + 1) for n in range(layers)]
        self.keys = [True] * layers
        self.now = 0.0
        self.forwarder.add_leg(self.leg, 0.0)

    def run(self, seconds):
        """What came out."""
        for _ in range(int(seconds * 30)):
            self.frame()
        return self.sink.take()

    def frame(self):
        self.now += 1 / 30
        for layer, source in enumerate(self.sources):
            self.forwarder.on_sender_report(layer, source.report(self.now), self.now, self.now)
            frame = source.frame(self.now, key=self.keys[layer], packets=self.packets[layer])
            self.keys[layer] = False
            self.forwarder.receive(layer, frame, self.now)
        self.forwarder.handle_timeout(self.now)
        for pli in self.publisher.take_rtcp(Pli):
            self.keys[pli.media_ssrc - 1] = True

    def limit(self, layer, temporal=MAX_TEMPORAL, *, halted=False):
        self.forwarder.set_limit(self.leg, layer, temporal, halted, self.now)


def in_order(packets):
    first = packets[0].sequence
    assert [packet.sequence for packet in packets] == [(first + n) & 0xFFFF for n in range(len(packets))]


def test_a_limit_moves_the_leg_and_lifting_it_moves_it_back():
    camera = Camera()
    before = camera.run(2.0)
    assert camera.leg.current_layer == 2
    camera.limit(1)
    between = camera.run(2.0)
    assert camera.leg.current_layer == 1
    camera.limit(2)
    after = camera.run(2.0)
    assert camera.leg.current_layer == 2
    in_order(before + between + after)


def test_the_lesser_of_wish_and_limit_counts():
    camera = Camera()
    camera.run(1.0)
    camera.forwarder.set_wanted(camera.leg, 0, 0, 0, camera.now)
    camera.limit(1)
    assert camera.leg.target_layer == 0
    camera.forwarder.set_wanted(camera.leg, 2, 0, 0, camera.now)
    assert camera.leg.target_layer == 1


def test_halted_is_silent_and_then_goes_on_without_a_hole():
    camera = Camera()
    before = camera.run(1.0)
    camera.limit(0, halted=True)
    assert camera.run(1.0) == []
    assert camera.leg.paused and not camera.leg.disabled
    camera.limit(2)
    after = camera.run(1.0)
    assert after
    in_order(before + after)


def test_unwanted_and_halted_need_both_to_end():
    camera = Camera()
    camera.run(1.0)
    camera.forwarder.set_paused(camera.leg, True, camera.now)
    camera.limit(0, halted=True)
    camera.forwarder.set_paused(camera.leg, False, camera.now)
    assert camera.run(0.5) == []
    camera.forwarder.set_paused(camera.leg, True, camera.now)
    camera.limit(0)
    assert camera.run(0.5) == []
    camera.forwarder.set_paused(camera.leg, False, camera.now)
    assert camera.run(0.5)


def test_a_publisher_goes_on_with_layers_that_only_bandwidth_keeps_back():
    camera = Camera()
    camera.run(1.0)
    camera.limit(0, halted=True)
    assert camera.forwarder.wanted_quality() == 2


# -- probes at the forwarder


def test_a_probe_sends_the_last_packets_again_as_retransmissions():
    camera = Camera()
    media = camera.run(1.0)
    size = len(media[-1].data)
    camera.forwarder.on_probe(camera.leg, 10 * size, camera.now)
    probe = camera.sink.take()
    assert 10 <= len(probe) <= 11
    originals = {packet.sequence: bytes(packet.payload) for packet in media}
    for packet in probe:
        assert packet.ssrc == camera.leg.rtx_ssrc
        original = unwrap_rtx(packet, payload_type=100, ssrc=camera.leg.ssrc)
        assert originals[original.sequence] == bytes(original.payload)
    in_order(probe)
    in_order(media + camera.run(0.2))


def test_a_probe_with_nothing_left_to_send_again_is_padding():
    camera = Camera()
    camera.run(1.0)
    camera.limit(0, halted=True)
    camera.run(20.0)
    camera.forwarder.on_probe(camera.leg, 2000, camera.now)
    probe = camera.sink.take()
    assert 2000 <= sum(len(packet.data) for packet in probe) < 2300
    assert all((packet.padding, len(packet.payload)) == (255, 0) for packet in probe)
    assert {packet.ssrc for packet in probe} == {camera.leg.rtx_ssrc}
    assert all(packet.extension(3) for packet in probe)
    in_order(probe)


@pytest.mark.parametrize("change", [{"revoked": True}, {"rtx_payload_types": {}}])
def test_no_probe_without_a_place_for_it(change):
    camera = Camera()
    camera.run(1.0)
    for name, value in change.items():
        setattr(camera.leg, name, value)
    camera.forwarder.on_probe(camera.leg, 2000, camera.now)
    assert camera.sink.take() == []


def test_a_probe_is_bounded():
    camera = Camera()
    camera.run(1.0)
    camera.forwarder.on_probe(camera.leg, 10**9, camera.now)
    assert len(camera.sink.take()) <= 64


# -- both, over a channel


class Channel:
    """A client behind a link of so many bits per second. Its estimate never exceeds 1.5 times what comes, and falls
    step by step to 85 % of the link while more is sent than it carries."""

    def __init__(self, capacity, **control):
        self.camera = Camera(packets=(1, 4, 12))
        self.capacity = capacity
        self.control = control_for(self.camera.leg, **control)
        self.estimate = 300_000.0
        self.octets = 0
        self.remb_due = 0.2
        self.seen, self.halted = [], []

    def run(self, seconds):
        camera, control = self.camera, self.control
        end = camera.now + seconds
        while camera.now < end:
            camera.frame()
            now = camera.now
            while (at := control.next_timeout()) is not None and at <= now:
                control.observe([camera.leg], at)
                control.handle_timeout(at)
                self.decide(now)
                found = control.take_probe()
                if found is not None:
                    camera.forwarder.on_probe(found[0], found[1], at)
            self.octets += sum(len(packet.data) for packet in camera.sink.take())
            if now >= self.remb_due:
                self.remb(now)
            self.seen.append(camera.leg.current_layer)
            self.halted.append(camera.leg.halted)

    def remb(self, now):
        rate, self.octets, self.remb_due = self.octets * 8 / 0.2, 0, now + 0.2
        if rate > self.capacity:
            self.estimate = max(0.85 * self.capacity, self.estimate * 0.9)
        else:
            self.estimate = max(self.estimate, min(1.5 * rate, self.capacity))
        if self.control.on_remb(int(self.estimate), [self.camera.leg], now):
            self.decide(now)

    def decide(self, now):
        for leg, limit, halted in self.control.decisions():
            layer, temporal = max(limit.spatial, 0), max(limit.temporal, 0)
            if (leg.limit_layer, leg.limit_temporal, leg.halted) != (layer, temporal, halted):
                self.camera.forwarder.set_limit(leg, layer, temporal, halted, now)


def test_a_link_with_room_is_left_alone():
    channel = Channel(5_000_000)
    channel.run(20.0)
    assert set(channel.seen[90:]) == {2}


def test_a_link_that_shrinks_gets_less_and_one_that_recovers_gets_all_again():
    channel = Channel(5_000_000)
    channel.run(5.0)
    top = channel.camera.forwarder.legs[0].offer.rates[2][0]
    channel.capacity = int(top * 0.7)
    channel.estimate = top
    channel.run(20.0)
    assert channel.camera.leg.current_layer == 1
    assert channel.seen[-300:].count(2) == 0
    channel.capacity = 5_000_000
    channel.run(90.0)
    assert channel.camera.leg.current_layer == 2
    assert not channel.control.deficient


def test_a_link_that_carries_hardly_anything_pauses_and_resumes():
    channel = Channel(5_000_000, allow_pause=True)
    channel.run(5.0)
    channel.capacity = 5_000
    channel.run(40.0)
    assert channel.halted.count(True) > 20 * 30
    assert max(channel.seen[-30 * 30 :]) == 0  # Tried once in a while, with the least there is.
    channel.capacity = 5_000_000
    channel.run(60.0)
    assert not channel.camera.leg.halted
    assert channel.camera.leg.current_layer == 2
