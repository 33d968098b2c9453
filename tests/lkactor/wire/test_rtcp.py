"""RTCP: RFC 3550 section 6, RFC 4585, RFC 5104, REMB, transport-wide feedback; compounds and reduced size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lkactor.errors import ProtocolViolation
from lkactor.wire.rtcp import (
    Bye,
    Fir,
    FirEntry,
    Nack,
    Pli,
    ReceiverReport,
    Remb,
    ReportBlock,
    RtcpPacket,
    Sdes,
    SenderReport,
    TransportFeedback,
    UnknownRtcp,
    build_rtcp,
    parse_rtcp,
)

TICK = 0.00025
BLOCK = ReportBlock(
    ssrc=7, fraction_lost=64, packets_lost=-3, highest_sequence=0x10005, jitter=9, lsr=0xABCD0001, dlsr=65536
)
SAMPLES: list[RtcpPacket] = [
    SenderReport(1, 0xE000000012345678, 90000, 10, 1200, (BLOCK,)),
    ReceiverReport(2, (BLOCK, BLOCK)),
    Sdes(((3, ((1, b"cname"), (99, b"\xff\x00"))), (4, ()))),
    Bye((5, 6)),
    Nack(1, 2, (10, 12, 26, 100)),
    Pli(1, 2),
    Fir(1, (FirEntry(9, 200), FirEntry(10, 1))),
    TransportFeedback(1, 2, 7, ((65535, 64.0), (0, None), (1, 64.25))),
    Remb(1, 1_000_000, (5, 6)),
    UnknownRtcp(204, 3, b"\0\0\0\1nameabcd"),
    UnknownRtcp(206, 15, b"\0\0\0\1\0\0\0\0ABCD"),
]


def feedback(body: str) -> TransportFeedback:
    data = bytes.fromhex(body.replace(" ", ""))
    data += bytes(-len(data) % 4)
    packet = parse_rtcp(b"\x8f\xcd" + (len(data) // 4 + 2).to_bytes(2, "big") + bytes(7) + b"\x02" + data)[0]
    assert isinstance(packet, TransportFeedback)
    return packet


@pytest.mark.parametrize("packet", SAMPLES, ids=lambda packet: type(packet).__name__)
def test_round_trip(packet: RtcpPacket) -> None:
    assert parse_rtcp(build_rtcp([packet])) == [packet]


def test_compound() -> None:
    data = build_rtcp(SAMPLES)
    assert len(data) % 4 == 0
    assert parse_rtcp(data) == SAMPLES


def test_bytes_of_a_pli_and_a_nack() -> None:
    assert build_rtcp([Pli(1, 2)]) == bytes.fromhex("81ce00020000000100000002")
    assert build_rtcp([Nack(1, 2, (100, 101, 116, 117))]) == bytes.fromhex(
        "81cd0004 0000000100000002 00648001 00750000"
    )


@given(st.integers(0, 65535), st.sets(st.integers(0, 200), min_size=1, max_size=80))
def test_nack_says_exactly_what_is_lost_across_the_wrap(base: int, offsets: set[int]) -> None:
    lost = tuple((base + offset) & 0xFFFF for offset in sorted(offsets))
    [packet] = parse_rtcp(build_rtcp([Nack(1, 2, lost)]))
    assert packet == Nack(1, 2, lost)


@pytest.mark.parametrize("lost", [-(1 << 23), -1, 0, (1 << 23) - 1])
def test_packets_lost_is_signed_24_bits(lost: int) -> None:
    block = ReportBlock(1, 255, lost, 0, 0, 0, 0)
    assert parse_rtcp(build_rtcp([ReceiverReport(1, (block,))])) == [ReceiverReport(1, (block,))]


def test_packets_lost_saturates() -> None:
    [packet] = parse_rtcp(build_rtcp([ReceiverReport(1, (ReportBlock(1, 0, 1 << 30, 0, 0, 0, 0),))]))
    assert isinstance(packet, ReceiverReport)
    assert packet.reports[0].packets_lost == (1 << 23) - 1


def test_sdes_chunk_lengths() -> None:
    for size in range(9):  # every alignment of the terminating zero
        sdes = Sdes(((1, ((1, bytes(range(1, size + 1))),)), (2, ((1, b"x"),))))
        assert parse_rtcp(build_rtcp([sdes])) == [sdes]


def test_bye_with_a_reason() -> None:
    assert parse_rtcp(bytes.fromhex("81cb0002 00000005 03627965")) == [Bye((5,))]


def test_padding_is_removed() -> None:
    assert parse_rtcp(bytes.fromhex("a1ce0003 0000000100000002 00000004")) == [Pli(1, 2)]


@pytest.mark.parametrize("data", ["", "80", "41ce00020000000100000002", "81ce0003", "a1ce0002 00000001 00000000"])
def test_malformed_headers(data: str) -> None:
    with pytest.raises(ProtocolViolation, match=r"rtcp\."):
        parse_rtcp(bytes.fromhex(data))


@pytest.mark.parametrize("packet", SAMPLES, ids=lambda packet: type(packet).__name__)
def test_truncated_at_every_length(packet: RtcpPacket) -> None:
    data = build_rtcp([packet])
    for length in range(len(data)):
        with pytest.raises(ProtocolViolation, match=r"rtcp\."):
            parse_rtcp(data[:length])


@pytest.mark.parametrize("packet", SAMPLES[:9], ids=lambda packet: type(packet).__name__)
def test_a_header_that_promises_more_than_the_body_has(packet: RtcpPacket) -> None:
    """The length field is consistent, the content is cut: only a violation or a shorter list may come of it."""
    data = build_rtcp([packet])
    for words in range(len(data) // 4 - 1):
        cut = data[:2] + words.to_bytes(2, "big") + data[4 : 4 + 4 * words]
        try:
            parsed = parse_rtcp(cut)
        except ProtocolViolation:
            continue
        assert parsed != [packet]


@pytest.mark.parametrize("bitrate", [0, 1, 262143, 262144, 2_500_000, 10**9])
def test_remb_keeps_eighteen_bits(bitrate: int) -> None:
    [packet] = parse_rtcp(build_rtcp([Remb(1, bitrate, (2,))]))
    assert isinstance(packet, Remb)
    assert packet.ssrcs == (2,)
    assert 0 <= bitrate - packet.bitrate <= bitrate >> 17


# -- transport-wide feedback


def test_feedback_run_length() -> None:
    packet = feedback("0005 0003 000001 09 2003 04 00 08")
    assert packet.feedback_count == 9
    assert packet.arrivals == ((5, 0.064 + 4 * TICK), (6, 0.064 + 4 * TICK), (7, 0.064 + 12 * TICK))


def test_feedback_one_bit_vector() -> None:
    packet = feedback("ffff 000e 000000 00 a001 01 02")  # first and last of fourteen
    received = [(sequence, at) for sequence, at in packet.arrivals if at is not None]
    assert len(packet.arrivals) == 14
    assert received == [(65535, TICK), (12, 3 * TICK)]


def test_feedback_two_bit_vector_with_large_and_negative_deltas() -> None:
    packet = feedback("0000 0003 000001 00 e600 7fff 01 8000")
    ticks = [round(at / TICK) if at is not None else None for _, at in packet.arrivals]
    assert ticks == [256 + 32767, 256 + 32768, 256]


def test_feedback_negative_reference_time() -> None:
    assert feedback("0000 0001 ffffff 00 2001 00").arrivals == ((0, -0.064),)


def test_feedback_of_losses_only() -> None:
    assert feedback("0000 0003 000000 00 0003").arrivals == ((0, None), (1, None), (2, None))


@pytest.mark.parametrize(
    "body", ["", "0000 0001 000000 00", "0000 0005 000000 00 2005 0101", "0000 0002 000000 00 4002 0001"]
)
def test_feedback_that_promises_more_than_it_has(body: str) -> None:
    with pytest.raises(ProtocolViolation, match=r"rtcp\.(twcc|feedback)"):
        feedback(body)


@given(
    base=st.integers(0, 65535),
    start=st.integers(0, 1 << 24),
    steps=st.lists(st.one_of(st.none(), st.integers(-2000, 300), st.integers(0, 255), st.just(30000)), max_size=120),
)
def test_feedback_round_trip(base: int, start: int, steps: list[int | None]) -> None:
    now = start
    arrivals: list[tuple[int, float | None]] = [(base, start * TICK)]
    for index, step in enumerate(steps):
        now = max(0, now + (step or 0))
        arrivals.append(((base + index + 1) & 0xFFFF, None if step is None else now * TICK))
    [packet] = parse_rtcp(build_rtcp([TransportFeedback(1, 2, 3, tuple(arrivals))]))
    assert isinstance(packet, TransportFeedback)
    assert [sequence for sequence, _ in packet.arrivals] == [sequence for sequence, _ in arrivals]
    first = arrivals[0][1]
    got_first = packet.arrivals[0][1]
    assert first is not None and got_first is not None
    for (_, want), (_, got) in zip(arrivals, packet.arrivals, strict=True):
        assert (want is None) == (got is None)
        if want is not None and got is not None:  # the reference time wraps after 2^24 x 64 ms: compare distances
            assert got - got_first == pytest.approx(want - first, abs=2 * TICK)


@given(st.binary(max_size=120))
def test_random_bytes_parse_or_violate(data: bytes) -> None:
    bodies = data[: len(data) // 4 * 4]
    candidates = [data]
    for kind in range(200, 208):
        for count in (0, 1, 2, 4, 15, 31):
            candidates.append(bytes((0x80 | count, kind)) + (len(bodies) // 4).to_bytes(2, "big") + bodies)
    for candidate in candidates:
        try:
            packets = parse_rtcp(candidate)
        except ProtocolViolation:
            continue
        assert packets
