"""Which packet belongs to what (livekit-media 3.1, 3.3), and transport-wide feedback (3.6)."""

import pytest
from support.media import OPUS, VP8

from lkactor.sdp import ReceiveMedia
from lkactor.sfu.router import MAX_UNKNOWN_SSRCS, RtpRouter
from lkactor.sfu.twcc import TwccRecorder
from lkactor.wire import extensions
from lkactor.wire.rtcp import build_rtcp, parse_rtcp
from lkactor.wire.rtp import build_rtp, parse_rtp

IDS = {extensions.MID: 1, extensions.RID: 2, extensions.REPAIRED_RID: 3, extensions.TRANSPORT_CC: 4}
SIMULCAST = ReceiveMedia("1", "video", "cam", "stream", (VP8,), IDS, rids=("q", "h", "f"))
SINGLE = ReceiveMedia("2", "video", "screen", "stream", (VP8,), IDS, ssrcs=(900, 901), rtx_of={901: 900})
AUDIO = ReceiveMedia("0", "audio", "mic", "stream", (OPUS,), IDS, ssrcs=(800,))


def packet(ssrc, *, pt=96, sequence=1, payload=b"payload", mid=None, rid=None, repaired=None, padding=0):
    values = {1: mid, 2: rid, 3: repaired}
    present = {id: value.encode() for id, value in values.items() if value is not None}
    data = build_rtp(
        payload_type=pt, sequence=sequence, timestamp=9, ssrc=ssrc, payload=payload, extensions=present, padding=padding
    )
    return parse_rtp(data, 1.0)


def router(*sections, layers=True):
    made = RtpRouter()
    made.set_media(sections or (AUDIO, SIMULCAST, SINGLE))
    if layers:
        made.set_layers("1", {"q": 0, "h": 1, "f": 2})
    return made


def keys(routed):
    return {key: len(packets) for key, packets in routed.items()}


def test_announced_ssrcs_need_no_extension():
    assert keys(router().route([packet(800, pt=111), packet(900), packet(900)])) == {("0", 0): 1, ("2", 0): 2}


def test_the_first_packet_of_each_stream_is_told_once_however_it_was_announced():
    table = router()
    table.route([packet(900), packet(900), packet(11, mid="1", rid="h")])
    assert sorted(table.take_bound()) == [("1", 1, 11, 0), ("2", 0, 900, 0)]
    table.set_media((AUDIO, SIMULCAST, SINGLE))
    table.route([packet(900), packet(11), packet(800, pt=111)])
    assert table.take_bound() == [("0", 0, 800, 0)]
    table.route([packet(800, pt=111), packet(901, pt=97)])
    assert table.take_bound() == []


def test_rids_are_remembered_for_ever():
    table = router()
    first = [packet(n, mid="1", rid=rid) for n, rid in ((11, "q"), (12, "h"), (13, "f"))]
    assert keys(table.route(first)) == {("1", 0): 1, ("1", 1): 1, ("1", 2): 1}
    table.set_media((AUDIO, SIMULCAST, SINGLE))
    assert keys(table.route([packet(12), packet(13), packet(12)])) == {("1", 1): 2, ("1", 2): 1}
    assert table.lookup(13) == ("1", 2) and table.lookup(99) is None


def test_unknown_rid_is_the_lowest_layer():
    assert keys(router().route([packet(11, mid="1", rid="x")])) == {("1", 0): 1}


def test_mid_without_rid_in_a_simulcast_section_waits():
    table = router()
    assert table.route([packet(11, mid="1")]) == {}
    assert keys(table.route([packet(11, mid="1", rid="h")])) == {("1", 1): 1}


def test_retransmissions_by_announced_group():
    lost = packet(901, pt=97, payload=(4321).to_bytes(2, "big") + b"lost")
    (original,) = router().route([lost])["2", 0]
    assert (original.ssrc, original.sequence, original.payload_type, bytes(original.payload)) == (
        900,
        4321,
        96,
        b"lost",
    )


def test_retransmissions_by_repaired_rid():
    table = router()
    rtx = packet(21, pt=97, mid="1", repaired="h", payload=(7).to_bytes(2, "big") + b"lost")
    assert table.route([rtx]) == {} and table.counters == {"rtx.before_media": 1}
    table.route([packet(12, mid="1", rid="h")])
    (original,) = table.route([rtx])["1", 1]
    assert (original.ssrc, original.sequence) == (12, 7)


def test_padding_and_odd_types_on_rtx_are_dropped():
    table = router()
    assert table.route([packet(901, pt=97, payload=b"", padding=200), packet(901, pt=98, payload=b"xxxx")]) == {}
    assert table.counters == {"rtx.padding": 1, "rtx.payload_type": 1}


def test_probes_on_ssrc_zero_are_ignored():
    table = router()
    assert table.route([packet(0, pt=97, payload=b"", padding=200)] * 100) == {}
    assert table.counters == {"rtp.ssrc_zero_probe": 100}


def test_unknown_ssrcs_are_bounded():
    table = router()
    table.route([packet(5000 + n, pt=50) for n in range(1000)])
    assert len(table._unknown) <= MAX_UNKNOWN_SSRCS
    assert sum(table.counters.values()) == 1000


def test_strangers_do_not_keep_others_out():
    table = router()
    table.route([packet(5000 + n, pt=50) for n in range(30)])
    assert keys(table.route([packet(11, mid="1", rid="q")])) == {("1", 0): 1}


def test_media_before_its_layers_are_known_is_not_bound_wrongly():
    table = router(layers=False)
    table.route([packet(13, mid="1", rid="f")])
    table.set_layers("1", {"q": 0, "h": 1, "f": 2})
    assert keys(table.route([packet(13, mid="1", rid="f")])) == {("1", 2): 1}


def test_the_rtx_stream_has_no_reports():
    assert router().lookup(901) is None


# -- transport-wide feedback


def marked(sequence, at, *, marker=False):
    data = build_rtp(
        payload_type=96, sequence=1, timestamp=1, ssrc=9, marker=marker, extensions={4: sequence.to_bytes(2, "big")}
    )
    return parse_rtp(data, at)


def note(recorder, sequences, at, **more):
    recorder.note_packets([marked(number & 0xFFFF, at, **more) for number in sequences], 4)


def test_few_packets_are_reported_after_100_ms():
    recorder = TwccRecorder()
    note(recorder, [5, 7], 10.0)
    assert recorder.feedback(10.05) == []
    assert recorder.next_timeout() == pytest.approx(10.1)
    (report,) = recorder.feedback(10.1)
    assert report.arrivals == ((5, 10.0), (6, None), (7, 10.0))
    assert recorder.next_timeout() is None and recorder.feedback(11.0) == []


@pytest.mark.parametrize(
    ("count", "elapsed", "marker", "reported"),
    [
        (20, 0.06, True, False),
        (21, 0.06, False, False),
        (21, 0.06, True, True),
        (21, 0.04, True, False),
        (100, 0.01, False, False),
        (101, 0.01, False, True),
    ],
)
def test_when_a_report_is_due(count, elapsed, marker, reported):
    recorder = TwccRecorder()
    note(recorder, [0], 10.0)
    assert recorder.feedback(10.1)
    note(recorder, range(1, count + 1), 10.1 + elapsed - 0.001, marker=marker)
    assert bool(recorder.feedback(10.1 + elapsed)) is reported


def test_reports_are_counted_and_follow_on_over_the_wrap():
    recorder = TwccRecorder()
    note(recorder, [65534, 65535], 1.0)
    note_one = recorder.feedback(1.1)
    note(recorder, [1, 2], 1.15)
    note_two = recorder.feedback(1.3)
    assert [r.feedback_count for r in note_one + note_two] == [0, 1]
    assert [number for number, _ in note_two[0].arrivals] == [0, 1, 2]
    assert note_two[0].arrivals[0][1] is None


def test_a_report_survives_the_wire():
    recorder = TwccRecorder()
    note(recorder, [10, 11, 14], 2.0)
    (report,) = recorder.feedback(2.2)
    (again,) = parse_rtcp(build_rtcp([report]))
    assert [(n, at is None) for n, at in again.arrivals] == [
        (10, False),
        (11, False),
        (12, True),
        (13, True),
        (14, False),
    ]


def test_a_jump_does_not_make_an_endless_report():
    recorder = TwccRecorder()
    note(recorder, [0], 1.0)
    recorder.feedback(1.1)
    note(recorder, [30000], 1.2)
    (report,) = recorder.feedback(1.4)
    assert len(report.arrivals) <= 1000


def test_without_the_extension_nothing_is_reported():
    recorder = TwccRecorder()
    recorder.note_packets([marked(1, 1.0)], 0)
    assert recorder.next_timeout() is None


def test_a_late_packet_does_not_unreport_others():
    recorder = TwccRecorder()
    note(recorder, [1, 2, 4, 5], 1.0)
    recorder.feedback(1.1)
    note(recorder, [3, 6], 1.15)
    (report,) = recorder.feedback(1.3)
    statuses = dict(report.arrivals)
    assert statuses.get(4, 0.0) is not None and statuses.get(5, 0.0) is not None
