"""Series of the data plane, read from real forwarders and legs: counts, loss, jitter, restarts, no double counts."""

import re

from livekit.protocol import models
from support.media import (
    Sink,
    VideoSource,
    audio_format,
    audio_leg,
    audio_packet,
    forwarder_for,
    video_format,
    video_leg,
)

from lkactor.media_metrics import MediaMetrics
from lkactor.metric_families import Families, exponential
from lkactor.wire.rtcp import ReportBlock

AUDIO = models.TrackInfo(sid="TR_AMx", type=models.TrackType.AUDIO, source=models.TrackSource.MICROPHONE)
VIDEO = models.TrackInfo(sid="TR_VCx", type=models.TrackType.VIDEO, source=models.TrackSource.CAMERA)


class World:
    def __init__(self):
        self.families = Families("ND_x")
        self.metrics = MediaMetrics(self.families)

    def read(self):
        """{"packet_total incoming initial": 3}: values of labels in the order of their names, without empty ones."""
        self.metrics.refresh()
        found = {}
        for line in self.families.text().decode().splitlines():
            name, text, value = re.fullmatch(r"(?:livekit_)?(\w+)(?:\{(.*)\})? (\S+)|#.*", line).groups()
            if name and not name.endswith("_created") and 'le="' not in text:
                labels = dict(re.findall(r'(\w+)="([^"]*)"', text))
                values = [labels[key] for key in sorted(labels) if not key.startswith("node_") and labels[key]]
                found[" ".join((name, *values))] = float(value)
        return found

    def audio(self):
        forwarder, _ = forwarder_for(audio_format())
        self.metrics.began(AUDIO)
        return forwarder

    def leg(self, forwarder, info=AUDIO, **options):
        leg = (audio_leg if info is AUDIO else video_leg)(Sink(), **options)
        self.metrics.leg_added(info.sid, leg)
        forwarder.add_leg(leg, 0.0)
        return leg


def tones(first, count, at=0.0):
    return [audio_packet(n, n * 960, at + n * 0.02) for n in range(first, first + count)]


def block(ssrc, lost, jitter=0):
    return ReportBlock(ssrc, 0, lost, 0, jitter, 0, 0)


def test_what_comes_in_and_goes_out():
    world = World()
    forwarder = world.audio()
    legs = [world.leg(forwarder), world.leg(forwarder, ssrc=77)]
    for packet in tones(0, 10):
        forwarder.receive(0, [packet], packet.arrival)
    world.metrics.sample("TR_AMx", [forwarder])
    found = world.read()
    assert found["packet_total incoming initial"] == 10
    assert found["packet_total outgoing initial"] == 20
    assert found["packet_bytes incoming initial"] == sum(len(packet.data) for packet in tones(0, 10))
    assert found["packet_bytes outgoing initial"] == sum(leg.octets + 10 * 12 for leg in legs)
    assert found["packet_loss_percent_count incoming MICROPHONE AUDIO"] == 1
    assert found["packet_loss_percent_sum incoming MICROPHONE AUDIO"] == 0
    assert (found["track_published_total AUDIO"], found["track_subscribed_total AUDIO"]) == (1, 2)
    assert (world.metrics.published, world.metrics.subscribed) == (1, 2)
    world.metrics.sample("TR_AMx", [forwarder])
    assert world.read() == found, "nothing is counted twice"


def test_who_leaves_between_two_samples_is_counted_then_and_once():
    world = World()
    forwarder = world.audio()
    short = world.leg(forwarder)
    world.leg(forwarder, ssrc=77)
    forwarder.receive(0, tones(0, 10), 0.2)
    short.report = block(short.ssrc, 1, jitter=48)
    world.metrics.leg_removed("TR_AMx", short, forwarder.clock_rate)
    forwarder.remove_leg(short)
    found = world.read()
    assert found["packet_total outgoing initial"] == 10
    assert found["packet_loss_total outgoing MICROPHONE AUDIO"] == 1
    assert round(found["jitter_us_sum outgoing MICROPHONE AUDIO"]) == 1000
    assert world.metrics.subscribed == 1
    world.metrics.leg_removed("TR_AMx", short, forwarder.clock_rate)
    assert world.read() == found
    world.metrics.sample("TR_AMx", [forwarder])
    assert world.read()["packet_total outgoing initial"] == 20
    assert world.read()["packet_loss_total outgoing MICROPHONE AUDIO"] == 1


def test_loss_and_disorder():
    world = World()
    forwarder = world.audio()
    packets = tones(0, 20)
    late = packets.pop(5)
    del packets[10:12]
    forwarder.receive(0, [*packets[:8], late, *packets[8:]], 0.5)
    world.metrics.sample("TR_AMx", [forwarder])
    found = world.read()
    assert found["packet_loss_total incoming MICROPHONE AUDIO"] == 2
    assert found["packet_loss_percent_sum incoming MICROPHONE AUDIO"] == 10
    assert found["packet_out_of_order_total incoming MICROPHONE AUDIO"] == 1
    assert found["jitter_us_count incoming MICROPHONE AUDIO"] == 1
    assert found["nack_total incoming"] == forwarder.nacks_sent > 0


def test_what_a_subscriber_reports():
    world = World()
    forwarder = world.audio()
    leg = world.leg(forwarder)
    forwarder.receive(0, tones(0, 10), 0.2)
    world.metrics.sample("TR_AMx", [forwarder])
    assert "packet_loss_percent_count outgoing MICROPHONE AUDIO" not in world.read(), "nothing was reported"
    assert "rtt_ms_count outgoing MICROPHONE AUDIO" not in world.read()
    forwarder.receive(0, tones(10, 10), 0.4)
    leg.report, leg.rtt = block(leg.ssrc, 2, jitter=48), 0.1
    world.metrics.sample("TR_AMx", [forwarder])
    found = world.read()
    assert found["packet_loss_percent_sum outgoing MICROPHONE AUDIO"] == 20
    assert found["packet_loss_total outgoing MICROPHONE AUDIO"] == 2
    assert round(found["jitter_us_sum outgoing MICROPHONE AUDIO"]) == 1000
    assert round(found["rtt_ms_sum outgoing MICROPHONE AUDIO"]) == 100
    forwarder.receive(0, tones(20, 10), 0.6)
    leg.report = block(leg.ssrc, 0)  # what was late has come
    world.metrics.sample("TR_AMx", [forwarder])
    assert world.read()["packet_loss_total outgoing MICROPHONE AUDIO"] == 2


def test_retransmissions_and_key_frame_requests():
    world = World()
    forwarder, _ = forwarder_for(video_format())
    world.metrics.began(VIDEO)
    leg = world.leg(forwarder, VIDEO)
    forwarder.receive(0, VideoSource(5).frame(0.0, key=True, packets=8), 0.0)
    sequences = [packet.sequence for packet in leg.egress.rtp]
    forwarder.on_nack(leg, sequences[2:5], 1.0)
    forwarder.on_key_frame_request(leg, 1.0)
    leg.plis, leg.firs = 2, 1
    world.metrics.sample("TR_VCx", [forwarder])
    found = world.read()
    assert found["packet_total outgoing initial"] == 8
    assert found["packet_total outgoing retransmit"] == 3
    octets = sum(len(packet.payload) for packet in leg.egress.rtp[8:])
    assert found["packet_bytes outgoing retransmit"] in (octets + 3 * 12, octets + 3 * 10), "with or without the OSN"
    assert found["nack_total outgoing"] == 3
    assert found["pli_total outgoing"] == 2
    assert found["fir_total outgoing"] == 1
    assert found["pli_total incoming"] == forwarder.plis_sent >= 1


def test_a_source_that_begins_anew_is_no_loss():
    world = World()
    forwarder = world.audio()
    forwarder.receive(0, tones(0, 10), 0.2)
    world.metrics.sample("TR_AMx", [forwarder])
    forwarder.receive(0, tones(20000, 10), 0.4)
    world.metrics.sample("TR_AMx", [forwarder])
    found = world.read()
    assert "packet_loss_total incoming MICROPHONE AUDIO" not in found
    assert found["packet_total incoming initial"] == 19, "the first of the new ones was a stray until the second came"


def test_a_track_that_restarts_counts_its_legs_on():
    world = World()
    forwarder = world.audio()
    leg = world.leg(forwarder)
    forwarder.receive(0, tones(0, 10), 0.2)
    world.metrics.sample("TR_AMx", [forwarder])
    world.metrics.ended("TR_AMx")
    assert world.read()["track_published_total AUDIO"] == 0
    again = world.audio()
    world.metrics.leg_added("TR_AMx", leg)
    again.add_leg(leg, 0.3)
    again.receive(0, tones(10, 5), 0.4)
    world.metrics.sample("TR_AMx", [again])
    assert world.read()["packet_total outgoing initial"] == leg.packets == 15


def test_a_leg_that_left_is_read_a_last_time():
    world = World()
    forwarder = world.audio()
    leg = world.leg(forwarder)
    forwarder.receive(0, tones(0, 10), 0.2)
    leg.revoked = True
    forwarder.remove_leg(leg)
    assert world.metrics.subscribed == 0
    for _ in range(2):
        world.metrics.sample("TR_AMx", [forwarder])
        assert world.read()["packet_total outgoing initial"] == 10


def test_of_an_unknown_track_nothing_is_said():
    world = World()
    forwarder, _ = forwarder_for(audio_format())
    world.metrics.sample("TR_AMx", [forwarder])
    world.metrics.ended("TR_AMx")
    assert not any(name.startswith("packet") for name in world.read())


def test_time_in_the_server():
    world = World()
    for microseconds in (200, 200, 1000):
        world.metrics.latency(microseconds / 1e6)
    found = world.read()
    assert found["forward_latency_ns_count"] == 3
    assert round(found["forward_latency_ns_sum"]) == 1_400_000
    assert 200_000 < found["forward_latency"] < 300_000
    assert 0 < found["forward_jitter"] < 100_000


def test_buckets_of_the_reference():
    bounds = exponential(10, 10_000, 15)
    assert (len(bounds), bounds[0], round(bounds[-1])) == (15, 10, 10_000)
