"""One track in several codecs: who is served from which, and what a change of codec does to a stream (livekit-media
3.11)."""

import pytest
from livekit.protocol import models
from support.media import THREE_LAYERS, VP8, Sink, VideoSource, ids_of, video_format, video_leg

from lkactor.sdp import Codec, ReceiveMedia
from lkactor.sfu import Renditions, formats_of
from lkactor.wire.rtcp import Nack, Pli
from lkactor.wire.rtp import build_rtp, parse_rtp

VP9 = Codec("video/vp9", 98, 90000, feedback=("nack", "nack pli"), rtx_payload_type=99)
PRIMARY, BACKUP = VP9.mime, VP8.mime
KEY, DELTA = b"\x8c\x01" + bytes(20), b"\xcc\x01" + bytes(20)


class Vp9Source:
    """A stream of single-packet pictures without layers."""

    def __init__(self, *, sequence=40000, timestamp=900_000):
        self.sequence, self.timestamp = sequence, timestamp

    def frame(self, now, *, key=False):
        data = build_rtp(
            payload_type=98, sequence=self.sequence, timestamp=self.timestamp, ssrc=9, marker=True,
            payload=KEY if key else DELTA,
        )  # fmt: skip
        self.sequence = (self.sequence + 1) & 0xFFFF
        self.timestamp += 3000
        return [parse_rtp(data, now)]


def made():
    renditions = Renditions({PRIMARY: video_format(codecs=(VP9, VP8)), BACKUP: video_format(codecs=(VP8,))})
    publisher = Sink()
    renditions.set_publisher(publisher)
    return renditions, publisher


def leg_for(sink, *codecs, subscriber="PA_1", ssrc=0xABC0001):
    leg = video_leg(sink, subscriber=subscriber, ssrc=ssrc)
    leg.payload_types = {98: 45, 96: 100}
    leg.rtx_payload_types = {45: 46, 100: 101}
    leg.codecs = codecs
    return leg


@pytest.mark.parametrize(
    ("codecs", "expected"),
    [((PRIMARY, BACKUP), PRIMARY), ((BACKUP,), BACKUP), ((PRIMARY,), PRIMARY), ((), PRIMARY)],
)
def test_a_leg_takes_the_first_codec_that_it_can_decode(codecs, expected):
    renditions, _ = made()
    sink = Sink()
    leg = leg_for(sink, *codecs)
    renditions.add_leg(leg, 0.0)
    renditions.add_leg(leg, 0.0)
    assert leg.codec == expected
    assert renditions.legs == [leg]
    renditions.receive("", 0, Vp9Source().frame(0.0, key=True), 0.0)
    renditions.receive(BACKUP, 0, VideoSource(5).frame(0.0, key=True, packets=1), 0.0)
    assert [packet.payload_type for packet in sink.rtp] == [45 if expected == PRIMARY else 100]


def test_a_wish_for_a_codec_that_is_not_sent_counts():
    renditions, _ = made()
    assert renditions.wanted() == {PRIMARY: -1, BACKUP: -1}
    leg = leg_for(Sink(), BACKUP)
    renditions.add_leg(leg, 0.0)
    assert renditions.wanted() == {PRIMARY: -1, BACKUP: 2}
    assert renditions.serves(BACKUP)
    assert not renditions.serves(PRIMARY)
    renditions.set_wanted(leg, models.VideoQuality.LOW, 0, 0, 0.0)
    assert renditions.wanted()[BACKUP] == 0
    renditions.set_paused(leg, True, 0.0)
    assert renditions.wanted()[BACKUP] == -1
    renditions.remove_leg(leg)
    assert not renditions.serves(BACKUP)


def test_regression_moves_everybody_who_can_and_the_stream_goes_on():
    renditions, publisher = made()
    sinks = [Sink() for _ in range(3)]
    both, only_backup, only_primary = (
        leg_for(sink, *codecs, subscriber=f"PA_{n}", ssrc=100 * (n + 1))
        for n, (sink, codecs) in enumerate(zip(sinks, [(PRIMARY, BACKUP), (BACKUP,), (PRIMARY,)], strict=True))
    )
    for leg in (both, only_backup, only_primary):
        renditions.add_leg(leg, 0.0)
    primary, backup = Vp9Source(), VideoSource(5)
    renditions.receive("", 0, primary.frame(0.0, key=True) + primary.frame(0.0), 0.0)
    assert renditions.add_codec(BACKUP, video_format())
    renditions.regress(BACKUP, 1.0)
    assert [leg.codec for leg in (both, only_backup, only_primary)] == [BACKUP, BACKUP, PRIMARY]
    assert renditions.wanted() == {PRIMARY: 2, BACKUP: 2}
    renditions.receive(BACKUP, 0, backup.frame(1.0), 1.0)
    renditions.handle_timeout(1.0)
    assert {pli.media_ssrc for pli in publisher.take_rtcp(Pli)} >= {5}
    renditions.receive("", 0, primary.frame(1.1), 1.1)
    renditions.receive(BACKUP, 0, backup.frame(1.5, key=True, packets=2), 1.5)
    seen = sinks[0].rtp
    assert [packet.payload_type for packet in seen] == [45, 45, 100, 100]
    assert [packet.sequence for packet in seen] == [40000, 40001, 40002, 40003]
    assert seen[2].timestamp - seen[1].timestamp == pytest.approx(1.5 * 90000, abs=2)
    assert ids_of(seen[2]).picture_id == 101
    assert [packet.payload_type for packet in sinks[1].rtp] == [100, 100]
    assert [packet.payload_type for packet in sinks[2].rtp] == [45, 45, 45]


def test_who_cannot_follow_stays_where_it_is():
    """Its transport replaces the leg."""
    renditions, _ = made()
    leg = leg_for(Sink(), PRIMARY, BACKUP)
    leg.fixed_codec = True
    renditions.add_leg(leg, 0.0)
    renditions.add_codec(BACKUP, video_format())
    renditions.regress(BACKUP, 0.0)
    assert leg.codec == PRIMARY
    renditions.remove_leg(leg)
    assert renditions.legs == []


def test_after_a_regression_newcomers_get_the_backup():
    renditions, _ = made()
    renditions.add_codec(BACKUP, video_format())
    renditions.regress(BACKUP, 0.0)
    newcomer = leg_for(Sink(), PRIMARY, BACKUP)
    renditions.add_leg(newcomer, 1.0)
    assert newcomer.codec == BACKUP


def test_retransmissions_never_cross_codecs():
    """Numbers from before the change point into the other codec's history."""
    renditions, _ = made()
    sink = Sink()
    leg = leg_for(sink, PRIMARY, BACKUP)
    renditions.add_leg(leg, 0.0)
    renditions.receive("", 0, Vp9Source(sequence=1000).frame(0.0, key=True), 0.0)
    renditions.add_codec(BACKUP, video_format())
    renditions.regress(BACKUP, 0.1)
    renditions.receive(BACKUP, 0, VideoSource(5, sequence=1000).frame(0.5, key=True, packets=1), 0.5)
    sent = sink.take()
    renditions.of(leg).on_nack(leg, [sent[0].sequence], 5.0)
    assert sink.take() == []
    renditions.of(leg).on_nack(leg, [sent[1].sequence], 5.0)
    assert [packet.payload_type for packet in sink.take()] == [101]


def test_when_the_backup_ends_those_who_can_go_back():
    renditions, _ = made()
    sink = Sink()
    both, only_backup = leg_for(sink, PRIMARY, BACKUP), leg_for(Sink(), BACKUP, subscriber="PA_2", ssrc=7)
    renditions.add_leg(both, 0.0)
    renditions.add_leg(only_backup, 0.0)
    renditions.add_codec(BACKUP, video_format())
    renditions.regress(BACKUP, 0.0)
    backup = VideoSource(5, sequence=2000)
    renditions.receive(BACKUP, 0, backup.frame(0.0, key=True, packets=1), 0.0)
    renditions.remove_codec(BACKUP, 1.0)
    assert (both.codec, only_backup.codec) == (PRIMARY, BACKUP)
    renditions.receive("", 0, Vp9Source().frame(1.0, key=True), 1.0)
    assert [packet.sequence for packet in sink.rtp] == [2000, 2001]
    assert [packet.payload_type for packet in sink.rtp] == [100, 45]


def test_feedback_and_mute_reach_all_codecs():
    renditions, publisher = made()
    renditions.add_leg(leg_for(Sink(), PRIMARY, BACKUP), 0.0)
    backup = VideoSource(5)
    frames = [backup.frame(0.0, key=True, packets=1), backup.frame(0.0), backup.frame(0.0, packets=1)]
    renditions.receive(BACKUP, 0, frames[0] + frames[2], 0.0)
    at = renditions.next_timeout()
    while at is not None and at < 0.1:
        renditions.handle_timeout(at)
        at = renditions.next_timeout()
    assert [nack.media_ssrc for nack in publisher.take_rtcp(Nack)][:1] == [5]
    assert renditions.uplink_window(0.2) == (4, 2)
    renditions.set_muted(True, 0.3)
    assert renditions.muted
    assert all(forwarder.muted for forwarder in renditions)


def test_an_unannounced_codec_is_counted_and_dropped():
    renditions, _ = made()
    renditions.receive("video/h264", 0, Vp9Source().frame(0.0, key=True), 0.0)
    assert not renditions.add_codec("video/h264", video_format())
    renditions.regress("video/h264", 0.0)
    assert renditions.counters == {"track.unannounced_codec": 2}
    leg = leg_for(Sink(), PRIMARY)
    renditions.add_leg(leg, 0.0)
    assert leg.codec == PRIMARY


def test_formats_come_from_what_was_announced_and_what_the_section_lists():
    info = models.TrackInfo(
        layers=THREE_LAYERS[:1],
        codecs=[
            models.SimulcastCodecInfo(mime_type="video/VP9", layers=THREE_LAYERS[:1]),
            models.SimulcastCodecInfo(mime_type="video/vp8", layers=THREE_LAYERS),
            models.SimulcastCodecInfo(mime_type="video/h264"),
        ],
    )
    media = ReceiveMedia("1", "video", "c", "s", (VP9, VP8), {})
    formats = formats_of(info, media, history=500, throttle=(1.0, 1.0, 1.0))
    assert list(formats) == [PRIMARY, BACKUP]
    assert [format.codecs for format in formats.values()] == [(VP9, VP8), (VP8,)]
    assert [len(format.layers) for format in formats.values()] == [1, 3]
