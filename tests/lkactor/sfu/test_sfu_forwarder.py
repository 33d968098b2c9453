"""Packets in, packets out: headers, pausing, retransmission, RED, reports, requests (livekit-media 3.4 to 4.8)."""

import pytest
from support.media import (
    NTP_ZERO,
    OPUS,
    RED,
    Sink,
    VideoSource,
    audio_format,
    audio_leg,
    audio_packet,
    forwarder_for,
    ids_of,
    red_payload,
    video_format,
    video_leg,
)

from lkactor.sfu.leg import HISTORY
from lkactor.sfu.reports import AT_ONCE, note_round_trip
from lkactor.wire.rtcp import Nack, Pli, ReceiverReport, Sdes, SenderReport
from lkactor.wire.rtp import unwrap_rtx


def one_video_leg(now=0.0, **changes):
    forwarder, publisher = forwarder_for(video_format(**changes))
    sink = Sink()
    leg = video_leg(sink)
    forwarder.add_leg(leg, now)
    return forwarder, publisher, sink, leg


def one_audio_leg(*codecs):
    forwarder, publisher = forwarder_for(audio_format(*codecs))
    sink = Sink()
    leg = audio_leg(sink)
    forwarder.add_leg(leg, 0.0)
    return forwarder, publisher, sink, leg


# -- the plain way


def test_first_packet_keeps_its_numbers_under_the_legs_names():
    forwarder, _, sink, leg = one_audio_leg()
    forwarder.receive(0, [audio_packet(65535, 0xFFFFFFF0, 0.0), audio_packet(0, 0x000003B0, 0.02)], 0.02)
    assert sink.runs == [2]
    assert [(p.sequence, p.timestamp, p.ssrc, p.payload_type) for p in sink.rtp] == [
        (65535, 0xFFFFFFF0, leg.ssrc, 109),
        (0, 0x3B0, leg.ssrc, 109),
    ]
    assert bytes(sink.rtp[0].payload) == b"\xfcopus"
    assert (leg.packets, leg.octets) == (2, 10)


def test_one_burst_is_one_run_per_leg():
    forwarder, _ = forwarder_for(video_format())
    sinks = [Sink() for _ in range(3)]
    for index, sink in enumerate(sinks):
        forwarder.add_leg(video_leg(sink, ssrc=index + 1, subscriber=f"PA_{index}"), 0.0)
    forwarder.receive(0, VideoSource(5).frame(0.0, key=True, packets=8), 0.0)
    assert [sink.runs for sink in sinks] == [[8]] * 3


def test_video_waits_for_a_key_frame():
    forwarder, _, sink, _ = one_video_leg()
    source = VideoSource(5)
    forwarder.receive(0, source.frame(0.0), 0.0)
    assert sink.rtp == []
    forwarder.receive(0, source.frame(0.1, key=True), 0.1)
    assert [p.marker for p in sink.rtp] == [False, True]


def test_abs_send_time_is_of_now():
    forwarder, _, sink, leg = one_video_leg()
    leg.abs_send_time_id = 3
    forwarder.receive(0, VideoSource(5).frame(0.0, key=True), 64.0 + 1.5)
    assert {p.extension(3) for p in sink.rtp} == {int(1.5 * (1 << 18)).to_bytes(3, "big")}


def test_source_padding_never_goes_out_and_leaves_no_hole():
    forwarder, _, sink, _ = one_video_leg()
    source = VideoSource(5)
    forwarder.receive(0, source.frame(0.0, key=True), 0.0)
    forwarder.receive(0, [source.padding(0.01), source.padding(0.01)], 0.01)
    forwarder.receive(
        0, [*source.frame(0.03, packets=1), source.packet(b"\x90\xf0\x80\x70\x0b\x03\x11", 0.03, padding=40)], 0.03
    )
    sequences = [p.sequence for p in sink.rtp]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    assert all(p.padding == 0 for p in sink.rtp)


def test_duplicates_and_unknown_payload_types_stay_out():
    forwarder, _, sink, _ = one_audio_leg()
    packet = audio_packet(5, 0, 0.0)
    forwarder.receive(0, [packet, packet, audio_packet(6, 960, 0.0, payload_type=99)], 0.0)
    assert len(sink.rtp) == 1 and forwarder.counters == {"rtp.payload_type": 1}


def test_codec_the_leg_does_not_take_is_counted():
    forwarder, _, sink, _ = one_audio_leg(OPUS, RED)
    forwarder.receive(0, [audio_packet(5, 0, 0.0, payload=red_payload([], b"primary"), payload_type=63)], 0.0)
    assert sink.rtp == [] and forwarder.counters == {"leg.codec": 1}


@pytest.mark.parametrize("attribute", ["paused", "revoked"])
def test_closed_legs_get_nothing(attribute):
    forwarder, _, sink, leg = one_audio_leg()
    setattr(leg, attribute, True)
    forwarder.receive(0, [audio_packet(5, 0, 0.0)], 0.0)
    assert sink.rtp == []


def test_a_transport_that_is_not_ready_gets_nothing():
    forwarder, _, sink, _ = one_audio_leg()
    sink.ready = False
    forwarder.receive(0, [audio_packet(5, 0, 0.0)], 0.0)
    assert sink.rtp == []


def test_large_bursts_are_split_and_complete():
    forwarder, _, sink, _ = one_video_leg()
    forwarder.receive(0, VideoSource(5).frame(0.0, key=True, packets=150), 0.0)
    assert sum(sink.runs) == 150 and len({p.sequence for p in sink.rtp}) == 150


# -- pausing and muting


def test_audio_mute_goes_on_without_a_hole():
    forwarder, _, sink, _ = one_audio_leg()
    forwarder.receive(0, [audio_packet(10, 0, 0.0)], 0.0)
    forwarder.set_muted(True, 0.1)
    forwarder.receive(0, [audio_packet(11, 960, 0.1)], 0.1)
    forwarder.set_muted(False, 2.0)
    forwarder.receive(0, [audio_packet(12, 960 + 96000, 2.0)], 2.0)
    assert [(p.sequence, p.timestamp) for p in sink.rtp] == [(10, 0), (11, 96960)]


def test_video_resumes_at_a_key_frame_that_is_asked_for():
    forwarder, publisher, sink, leg = one_video_leg()
    source = VideoSource(5)
    forwarder.receive(0, source.frame(0.0, key=True), 0.0)
    leg.target_layer = 0
    forwarder.set_paused(leg, True, 1.0)
    forwarder.receive(0, source.frame(1.0), 1.0)
    forwarder.set_paused(leg, False, 2.0)
    publisher.rtcp.clear()
    forwarder.receive(0, source.frame(2.0), 2.0)
    forwarder.handle_timeout(2.5)
    assert publisher.take_rtcp(Pli)
    source.timestamp += 180000
    forwarder.receive(0, source.frame(2.6, key=True), 2.6)
    sequences = [p.sequence for p in sink.rtp]
    assert sequences == list(range(sequences[0], sequences[0] + 4))
    assert [ids_of(p).picture_id for p in sink.rtp] == [100, 100, 101, 101]


def test_time_never_goes_back_when_the_clock_of_the_source_did():
    forwarder, _, sink, _ = one_audio_leg()
    forwarder.receive(0, [audio_packet(10, 500000, 0.0)], 0.0)
    forwarder.set_muted(True, 0.1)
    forwarder.set_muted(False, 2.0)
    forwarder.receive(0, [audio_packet(11, 100, 2.0)], 2.0)
    first, second = sink.rtp
    assert 0 < (second.timestamp - first.timestamp) & 0xFFFFFFFF < 0x80000000


def test_time_passes_while_a_source_is_muted():
    forwarder, _, sink, _ = one_audio_leg()
    forwarder.receive(0, [audio_packet(10, 0, 0.0)], 0.0)
    forwarder.set_muted(True, 0.1)
    forwarder.set_muted(False, 10.0)
    forwarder.receive(0, [audio_packet(11, 960, 10.0)], 10.0)
    assert sink.rtp[1].timestamp == pytest.approx(480000, abs=48000 * 0.2)


def test_a_regranted_leg_goes_on_with_its_numbers():
    forwarder, _, sink, leg = one_audio_leg()
    forwarder.receive(0, [audio_packet(10, 0, 0.0)], 0.0)
    again, _ = forwarder_for(audio_format())
    again.add_leg(leg, 1.0)
    again.receive(0, [audio_packet(500, 48000, 1.0)], 1.0)
    assert [p.sequence for p in sink.rtp] == [10, 11]


@pytest.mark.parametrize("step", ["another ssrc", "long outage over the wrap"])
def test_a_restarted_stream_reaches_the_legs(step):
    forwarder, _, sink, _ = one_audio_leg()
    burst = [audio_packet(n & 0xFFFF, n * 960, 0.0) for n in range(65500, 65600)]
    forwarder.receive(0, burst, 0.0)
    sink.take()
    if step == "another ssrc":
        packets = [audio_packet(n, n * 960, 1.0, ssrc=78) for n in range(100, 150)]
    else:
        packets = [audio_packet(n, n * 960, 60.0) for n in range(5000, 5050)]
    forwarder.receive(0, packets, 60.0)
    assert len(sink.rtp) >= 40


# -- retransmission


def resent(sink, leg, forwarder, sequences, now):
    sink.take()
    forwarder.on_nack(leg, sequences, now)
    return sink.take()


def test_lost_packets_come_again_on_the_rtx_stream():
    forwarder, _, sink, leg = one_video_leg()
    forwarder.receive(0, VideoSource(5).frame(0.0, key=True), 0.0)
    original = sink.rtp[1]
    first, second = resent(sink, leg, forwarder, (original.sequence,), 0.2) + resent(
        sink, leg, forwarder, (original.sequence,), 0.4
    )
    assert (first.ssrc, first.payload_type) == (leg.rtx_ssrc, 101)
    assert second.sequence == (first.sequence + 1) & 0xFFFF
    again = unwrap_rtx(first, payload_type=100, ssrc=leg.ssrc)
    assert again.data == original.data


def test_without_rtx_the_same_packet_comes_again():
    forwarder, _ = forwarder_for(video_format())
    sink = Sink()
    leg = video_leg(sink, rtx=False)
    forwarder.add_leg(leg, 0.0)
    forwarder.receive(0, VideoSource(5).frame(0.0, key=True), 0.0)
    original = sink.rtp[0]
    assert [p.data for p in resent(sink, leg, forwarder, (original.sequence,), 0.2)] == [original.data]


def test_at_most_three_answers_and_none_twice_within_100_ms():
    forwarder, _, sink, leg = one_video_leg()
    forwarder.receive(0, VideoSource(5).frame(0.0, key=True), 0.0)
    number = sink.rtp[0].sequence
    answers = [len(resent(sink, leg, forwarder, (number,), at)) for at in (0.2, 0.25, 0.31, 0.42, 0.53, 0.64)]
    assert answers == [1, 0, 1, 1, 0, 0]


def test_not_within_the_first_100_ms():
    forwarder, _, sink, leg = one_video_leg()
    forwarder.receive(0, VideoSource(5).frame(0.0, key=True), 0.0)
    assert resent(sink, leg, forwarder, (sink.rtp[0].sequence,), 0.05) == []


def test_unknown_and_forgotten_numbers_are_counted():
    forwarder, _, sink, leg = one_video_leg()
    source = VideoSource(5)
    forwarder.receive(0, source.frame(0.0, key=True), 0.0)
    first = sink.rtp[0].sequence
    assert resent(sink, leg, forwarder, (first + 5000,), 1.0) == []
    for _ in range(HISTORY):
        forwarder.receive(0, source.frame(0.0), 0.0)
    assert resent(sink, leg, forwarder, (first,), 1.0) == []
    assert (leg.nacks, leg.unanswered_nacks, leg.resent) == (2, 2, 0)


def test_resent_after_a_switch_with_the_time_it_had():
    forwarder, _, sink, leg = one_video_leg()
    low, high = VideoSource(5), VideoSource(6, timestamp=900000, sequence=9000)
    for source, layer in ((low, 0), (high, 1)):
        forwarder.receive(layer, source.frame(0.0, key=layer == 0), 0.0)
        forwarder.on_sender_report(layer, source.report(0.033), 0.0, 0.0)
    original = sink.take()[0]
    forwarder.receive(1, high.frame(0.033, key=True), 0.033)
    assert leg.current_layer == 1
    again = resent(sink, leg, forwarder, (original.sequence,), 0.3)[0]
    assert unwrap_rtx(again, payload_type=100, ssrc=leg.ssrc).timestamp == original.timestamp


# -- RED


def red_leg(forwarder, *, passes):
    sink = Sink()
    leg = audio_leg(sink)
    leg.payload_types = {63: 64, 111: 109} if passes else {63: 109, 111: 109}
    leg.red_payload_types = {63: 109} if passes else {}
    forwarder.add_leg(leg, 0.0)
    return sink


def test_red_is_passed_on_with_the_inner_type_of_the_leg():
    forwarder, _ = forwarder_for(audio_format(RED, OPUS))
    sink = red_leg(forwarder, passes=True)
    payload = red_payload([(1920, b"old"), (960, b"newer")], b"primary")
    forwarder.receive(0, [audio_packet(7, 4800, 0.0, payload=payload, payload_type=63)], 0.0)
    assert sink.rtp[0].payload_type == 64
    assert bytes(sink.rtp[0].payload) == red_payload([(1920, b"old"), (960, b"newer")], b"primary", inner=109)


def test_without_red_the_primary_goes_out():
    forwarder, _ = forwarder_for(audio_format(RED, OPUS))
    sink = red_leg(forwarder, passes=False)
    payload = red_payload([(960, b"older")], b"primary")
    forwarder.receive(0, [audio_packet(7, 4800, 0.0, payload=payload, payload_type=63)], 0.0)
    assert [(p.payload_type, p.timestamp, bytes(p.payload)) for p in sink.rtp] == [(109, 4800, b"primary")]


def test_without_red_lost_primaries_are_recovered():
    forwarder, _ = forwarder_for(audio_format(RED, OPUS))
    sink = red_leg(forwarder, passes=False)
    for number in (1, 3):
        payload = red_payload([(960, b"p%d" % (number - 1))], b"p%d" % number)
        forwarder.receive(0, [audio_packet(number, number * 960, 0.0, payload=payload, payload_type=63)], 0.0)
    assert [(p.sequence, p.timestamp, bytes(p.payload)) for p in sink.rtp] == [
        (n, n * 960, b"p%d" % n) for n in (1, 2, 3)
    ]


def test_malformed_red_is_dropped():
    forwarder, _ = forwarder_for(audio_format(RED, OPUS))
    sink = red_leg(forwarder, passes=False)
    forwarder.receive(0, [audio_packet(7, 0, 0.0, payload=b"\xef\xff\xff\xff", payload_type=63)], 0.0)
    assert forwarder.counters.get("red.malformed") == 1
    assert sink.rtp == []


# -- reports and requests


def test_sender_reports_tell_the_publishers_time_in_the_legs_numbers():
    forwarder, _, sink, leg = one_audio_leg()
    forwarder.receive(0, [audio_packet(10, 1000, 0.0)], 0.0)
    forwarder.handle_timeout(1.0)
    assert sink.take_rtcp(SenderReport) == []
    forwarder.on_sender_report(0, SenderReport(77, NTP_ZERO, 49000, 9, 9), 1.0, 1.0)
    forwarder.handle_timeout(4.5)
    first, second = sink.take_rtcp(SenderReport)
    assert (first.ssrc, first.ntp, first.rtp, first.packets, first.octets) == (leg.ssrc, NTP_ZERO, 49000, 1, 5)
    assert second.ntp - first.ntp == int(3.5 * (1 << 32)) and second.rtp - first.rtp == int(3.5 * 48000)
    assert sink.take_rtcp(Sdes)[0].chunks == ((leg.ssrc, ((1, b"PA_pub"),)),)


def test_many_legs_are_reported_to_a_part_at_a_time():
    """All of a large room at once would hold the loop up: media of others, too."""
    forwarder, _ = forwarder_for(audio_format())
    sinks = [Sink() for _ in range(2 * AT_ONCE + 1)]
    for number, sink in enumerate(sinks):
        forwarder.add_leg(audio_leg(sink, ssrc=number + 1), 0.0)
    forwarder.receive(0, [audio_packet(10, 1000, 0.0)], 0.0)
    forwarder.on_sender_report(0, SenderReport(77, NTP_ZERO, 49000, 9, 9), 0.5, 0.5)
    now, told = 0.5, []
    for _ in range(3):
        told.append(sum(len(sink.take_rtcp(SenderReport)) for sink in sinks))
        now = forwarder.next_timeout()
        forwarder.handle_timeout(now)
    assert told == [AT_ONCE, AT_ONCE, 1] and now == 1.0, "from then on the track's own reports are next"


def test_a_time_of_the_publisher_near_its_end_does_no_harm():
    forwarder, _, sink, _ = one_audio_leg()
    forwarder.receive(0, [audio_packet(10, 1000, 0.0)], 0.0)
    forwarder.on_sender_report(0, SenderReport(77, (1 << 64) - 1, 0, 0, 0), 0.0, 0.0)
    forwarder.handle_timeout(10.0)
    assert sink.take_rtcp(SenderReport)


def test_a_sender_report_that_waited_is_of_when_it_came_and_those_of_legs_are_of_now():
    forwarder, _, sink, leg = one_audio_leg()
    forwarder.receive(0, [audio_packet(10, 1000, 0.0)], 0.0)
    forwarder.on_sender_report(0, SenderReport(77, NTP_ZERO, 1000, 0, 0), 1.0, 1.1)
    (sent,) = sink.take_rtcp(SenderReport)
    assert leg.report_sent_at == 1.1 and sent.ntp == pytest.approx(NTP_ZERO + 0.1 * (1 << 32), rel=1e-12)
    block = forwarder.receivers[0].report_block(1.5)
    assert block.dlsr == 65536 // 2


def test_round_trip_time_from_report_blocks():
    forwarder, _, sink, leg = one_audio_leg()
    forwarder.receive(0, [audio_packet(10, 1000, 0.0)], 0.0)
    forwarder.on_sender_report(0, SenderReport(77, NTP_ZERO, 0, 0, 0), 0.0, 0.0)
    sent = sink.take_rtcp(SenderReport)[0]
    lsr = sent.ntp >> 16 & 0xFFFFFFFF
    note_round_trip(leg, lsr, 65536 // 2, 0.6)
    assert leg.rtt == pytest.approx(0.070 + (0.1 - 0.070) / 4)
    note_round_trip(leg, lsr ^ 1, 0, 9.0)
    assert leg.rtt == pytest.approx(0.070 + (0.1 - 0.070) / 4)


def test_receiver_reports_each_second_for_live_layers():
    forwarder, publisher, _, _ = one_video_leg()
    forwarder.receive(0, VideoSource(5).frame(0.0, key=True), 0.0)
    forwarder.receive(1, VideoSource(6).frame(0.0, key=True), 0.0)
    forwarder.handle_timeout(0.9)
    assert publisher.take_rtcp(ReceiverReport) == []
    forwarder.handle_timeout(1.0)
    reports = publisher.take_rtcp(ReceiverReport)
    assert [(r.ssrc, r.reports[0].ssrc) for r in reports] == [(5, 5), (6, 6)]
    forwarder.handle_timeout(2.0)
    assert publisher.take_rtcp(ReceiverReport) == []


def test_gaps_are_asked_for_by_timer_with_the_medias_ssrc():
    forwarder, publisher, _, _ = one_audio_leg()
    forwarder.receive(0, [audio_packet(10, 0, 0.0), audio_packet(13, 2880, 0.0)], 0.0)
    assert publisher.take_rtcp(Nack) == []
    assert forwarder.next_timeout() == pytest.approx(0.02)
    forwarder.handle_timeout(0.021)
    assert publisher.take_rtcp(Nack) == [Nack(77, 77, (11, 12))]


def test_picture_loss_is_asked_on_with_a_throttle():
    forwarder, publisher, _, leg = one_video_leg()
    leg.target_layer = 0
    source = VideoSource(5)
    forwarder.receive(0, source.frame(0.0, key=True), 0.0)
    forwarder.on_key_frame_request(leg, 1.0)
    forwarder.on_key_frame_request(leg, 1.4)
    assert publisher.take_rtcp(Pli) == [Pli(5, 5)]
    forwarder.on_key_frame_request(leg, 1.5)
    assert publisher.take_rtcp(Pli) == [Pli(5, 5)]


def asked_for_pictures(publisher):
    return sum(isinstance(packet, Pli) for packet in publisher.rtcp)


def test_a_request_within_the_throttle_is_kept_until_it_is_over():
    forwarder, publisher, _, leg = one_video_leg()
    forwarder.receive(0, VideoSource(5).frame(0.0, key=True), 0.0)
    forwarder.on_key_frame_request(leg, 1.0)
    before = asked_for_pictures(publisher)
    forwarder.on_key_frame_request(leg, 1.1)
    assert asked_for_pictures(publisher) == before
    due = forwarder.next_timeout()
    assert due is not None and due <= 1.5
    forwarder.handle_timeout(1.5)
    assert asked_for_pictures(publisher) == before + 1
    forwarder.handle_timeout(2.5)
    assert asked_for_pictures(publisher) == before + 1


def test_a_key_frame_that_comes_answers_a_kept_request():
    forwarder, publisher, _, leg = one_video_leg()
    source = VideoSource(5)
    forwarder.receive(0, source.frame(0.0, key=True), 0.0)
    forwarder.on_key_frame_request(leg, 1.0)
    forwarder.on_key_frame_request(leg, 1.1)
    forwarder.receive(0, source.frame(1.2, key=True), 1.2)
    before = asked_for_pictures(publisher)
    forwarder.handle_timeout(1.6)
    assert asked_for_pictures(publisher) == before


def test_a_long_nack_is_answered_in_full():
    forwarder, _, sink, leg = one_audio_leg()
    forwarder.receive(0, [audio_packet(n, n * 960, 0.0) for n in range(150)], 0.0)
    assert len(resent(sink, leg, forwarder, tuple(range(150)), 1.0)) == 150


def test_the_wanted_quality_is_the_highest_of_the_open_legs():
    forwarder, _ = forwarder_for(video_format())
    assert forwarder.wanted_quality() == -1
    legs = [video_leg(Sink(), ssrc=n + 1, subscriber=f"PA_{n}") for n in range(2)]
    for leg, quality in zip(legs, (0, 2), strict=True):
        forwarder.add_leg(leg, 0.0)
        forwarder.set_wanted(leg, quality, 0, 0, 0.0)
    assert forwarder.wanted_quality() == 2
    forwarder.set_paused(legs[1], True, 1.0)
    assert forwarder.wanted_quality() == 0
    forwarder.set_paused(legs[0], True, 1.0)
    assert forwarder.wanted_quality() == -1


def test_a_waiting_leg_makes_the_forwarder_ask_until_it_is_served():
    forwarder, publisher, _, _ = one_video_leg()
    source, now = VideoSource(5), 0.0
    forwarder.receive(0, source.frame(now), now)
    while now < 2.2:
        now = max(now + 0.01, forwarder.next_timeout())
        forwarder.receive(0, source.frame(now), now)
        forwarder.handle_timeout(now)
    assert 4 <= len(publisher.take_rtcp(Pli)) <= 6
    forwarder.receive(0, source.frame(now, key=True), now)
    for _ in range(20):
        now += 0.1
        forwarder.receive(0, source.frame(now), now)
        forwarder.handle_timeout(now)
    assert publisher.take_rtcp(Pli) == []


@pytest.mark.parametrize("what", ["joins", "wants more", "comes back", "is unmuted"])
def test_whoever_waits_is_asked_for_at_once_while_others_are_served(what):
    forwarder, publisher = forwarder_for(video_format())
    legs, sources = (
        [video_leg(Sink(), ssrc=n + 1, subscriber=f"PA_{n}") for n in range(2)],
        [VideoSource(5), VideoSource(6)],
    )
    for leg in legs[: 1 if what == "joins" else 2]:
        forwarder.add_leg(leg, 0.0)
        forwarder.set_wanted(leg, 0, 0, 0, 0.0)

    def feed(until, now=0.0):
        while now < until:
            for layer, source in enumerate(sources):
                forwarder.receive(layer, source.frame(now, key=now == 0.0), now)
            forwarder.handle_timeout(now)
            now += 0.05

    feed(2.0)
    if what == "comes back":
        forwarder.set_paused(legs[1], True, 2.0)
    if what == "is unmuted":
        forwarder.set_muted(True, 2.0)
    feed(4.12, 2.0)
    publisher.rtcp.clear()
    if what == "joins":
        forwarder.add_leg(legs[1], 4.13)
    elif what == "wants more":
        forwarder.set_wanted(legs[1], 1, 0, 0, 4.13)
    elif what == "comes back":
        forwarder.set_paused(legs[1], False, 4.13)
    else:
        forwarder.set_muted(False, 4.13)
    assert forwarder.next_timeout() <= 4.13
    forwarder.handle_timeout(4.13)
    assert len(publisher.take_rtcp(Pli)) == 1


def test_a_removed_leg_is_served_no_more():
    forwarder, _, sink, leg = one_audio_leg()
    forwarder.remove_leg(leg)
    forwarder.remove_leg(leg)
    forwarder.receive(0, [audio_packet(1, 0, 0.0)], 0.0)
    assert sink.rtp == []


def test_reports_go_on_after_a_silence_without_anybody_there() -> None:
    forwarder, publisher = forwarder_for(audio_format())
    forwarder.receive(0, [audio_packet(1, 960, 0.0)], 0.0)
    for second in range(1, 6):
        forwarder.handle_timeout(float(second))
    publisher.take_rtcp(ReceiverReport)
    forwarder.receive(0, [audio_packet(2, 1920, 5.5)], 5.5)
    forwarder.handle_timeout(6.0)
    assert publisher.take_rtcp(ReceiverReport)
