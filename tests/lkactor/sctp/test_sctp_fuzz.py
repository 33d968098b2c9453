"""An association under hostile packets: no verb raises, memory stays bounded, and a later good message still arrives.

The packets have a right checksum and tag (the peer is authenticated by DTLS, not honest).
"""

import random
import struct
from collections.abc import Callable
from typing import Literal

import pytest

from lkactor.sctp import MessageReceived, SctpAssociation, SctpClosed, SctpLimits, State, chunks
from lkactor.sctp.chunks import ChunkType, Sack, build_chunk, build_packet, parse_packet
from lkactor.sctp.dcep import Open

LIMITS = SctpLimits(receive_window=100_000, max_message_size=30_000, max_channels=32, max_streams=64)


def endpoint(seed: int, role: Literal["client", "server"]) -> SctpAssociation:
    return SctpAssociation(rng=random.Random(seed), dtls_role=role, limits=LIMITS)


def connected(seed: int) -> tuple[SctpAssociation, SctpAssociation]:
    a, b = endpoint(seed * 2, "client"), endpoint(seed * 2 + 1, "server")
    a.start(0.0)
    settle(a, b, 0.0)
    return a, b


def settle(a: SctpAssociation, b: SctpAssociation, now: float) -> None:
    for _ in range(50):
        for source, sink in ((a, b), (b, a)):
            for packet in source.datagrams_to_send(now):
                sink.receive_datagram(packet, now)


def word(rng: random.Random, near: int) -> int:
    return (near + rng.choice((0, 1, 2, 3, 10, -1, -2, 70_000, rng.getrandbits(32)))) & 0xFFFFFFFF


def random_chunk(rng: random.Random, victim: SctpAssociation) -> bytes:
    receiver = victim._receiver
    tsn = receiver.cumulative if receiver is not None else 0
    acked = victim._sender.cumulative
    stream = rng.choice((0, 1, 2, 3, 63, 64, 65535))
    match rng.randrange(9):
        case 0 | 1:
            payload = rng.choice((b"", rng.randbytes(rng.randrange(1, 1160)), Open("x").build(), b"\2"))
            ppid = rng.choice((50, 51, 53, 56, 57, 0))
            return chunks.build_data(word(rng, tsn), stream, rng.randrange(4), ppid, rng.randrange(16), payload)
        case 2:
            blocks = tuple((rng.randrange(9), rng.randrange(12)) for _ in range(rng.randrange(4)))
            return Sack(word(rng, acked), rng.choice((0, 100, 1 << 20)), blocks, (1,)).build()
        case 3:
            skipped = [(stream, rng.randrange(65536)) for _ in range(rng.randrange(3))]
            return chunks.build_forward_tsn(word(rng, tsn), skipped)
        case 4:
            number = victim._reset._expected if victim._reset is not None else 0
            value = struct.pack(">III", word(rng, number), rng.getrandbits(32), word(rng, tsn))
            value += struct.pack(">H", stream) * rng.randrange(4)
            return build_chunk(ChunkType.RE_CONFIG, 0, chunks.build_param(rng.randrange(12, 20), value))
        case 5:
            return build_chunk(rng.randrange(256), rng.randrange(256), rng.randbytes(rng.randrange(40)))
        case 6:
            kinds = (4, 5, 9, 10, 11, 130, 192, 3, 0, 1, 2)
            return build_chunk(rng.choice(kinds), rng.randrange(256), rng.randbytes(rng.randrange(60)))
        case 7:
            return build_chunk(ChunkType.HEARTBEAT, 0, chunks.build_param(1, rng.randbytes(9)))
        case _:
            return build_chunk(rng.choice((7, 8, 14, 6)), 0, bytes(4)) if rng.random() < 0.01 else b""


def check_bounds(victim: SctpAssociation) -> None:
    receiver = victim._receiver
    assert len(victim._channels._by_id) <= LIMITS.max_channels
    assert len(victim._packets) <= 64 and len(victim._control) <= 70
    assert victim._sender.flight >= 0 and victim._sender.buffered >= 0
    assert victim._sender.flight == sum(c.size for c in victim._sender._outstanding.values() if c.in_flight)
    if receiver is not None:
        held = sum(r.charge for r in receiver._runs_by_start.values())
        held += sum(m.charge for order in receiver._orders.values() for m in order.waiting.values())
        assert receiver.buffered == held <= 2 * LIMITS.receive_window
        assert len(receiver._runs_by_start) == len(receiver._runs_by_end)
        assert len(receiver._starts) <= LIMITS.max_gap_ranges
        assert len(receiver._orders) <= LIMITS.max_streams


@pytest.mark.parametrize("seed", range(25))
def test_random_chunks_from_an_authenticated_peer(seed: int) -> None:
    rng = random.Random(seed)
    now = 0.0
    for episode in range(12):
        victim, other = connected(seed * 100 + episode)
        channel = victim.open_channel("mine", max_retransmits=rng.choice((None, 0, 1)))
        settle(victim, other, now)
        for _ in range(120):
            if victim.state is State.ENDED:
                break
            now += rng.choice((0.0, 0.01, 0.5))
            victim.send(channel, bytes(rng.randrange(3000)), now=now)
            parts = [random_chunk(rng, victim) for _ in range(rng.randrange(1, 4))]
            tag = 0 if parts[0][:1] == b"\1" else victim._local_tag
            victim.receive_datagram(build_packet(tag, parts), now)
            deadline = victim.next_timeout()
            if deadline is not None and deadline <= now:
                victim.handle_timeout(now)
            if rng.random() < 0.8:
                victim.datagrams_to_send(now)
            if rng.random() < 0.9:
                while victim.next_event() is not None:
                    pass
            check_bounds(victim)


@pytest.mark.parametrize("seed", range(10))
def test_mutated_real_traffic(seed: int) -> None:
    rng = random.Random(seed)
    a, b = endpoint(seed, "client"), endpoint(seed + 1000, "server")
    a.start(0.0)
    channel = a.open_channel("c", ordered=False, max_retransmits=1)
    now = 0.0
    for step in range(400):
        now += 0.02
        a.send(channel, bytes(rng.randrange(5000)), now=now)
        if step == 200:
            a.close_channel(channel, now)
        for source, sink in ((a, b), (b, a)):
            for packet in source.datagrams_to_send(now):
                mutated = bytearray(packet)
                if rng.random() < 0.3:
                    for _ in range(rng.randint(1, 3)):
                        mutated[rng.randrange(12, len(mutated))] ^= 1 << rng.randrange(8)
                    mutated = mutated[: rng.choice((len(mutated), rng.randrange(12, len(mutated) + 1)))]
                    mutated[8:12] = bytes(4)
                    mutated[8:12] = chunks.checksum(bytes(mutated))
                sink.receive_datagram(bytes(mutated), now)
                check_bounds(sink)
            source.handle_timeout(now)
            while source.next_event() is not None:
                pass


def test_noise_truncation_and_foreign_tags_change_nothing() -> None:
    rng = random.Random(1)
    a, b = connected(1)
    channel = a.open_channel("c")
    a.send(channel, b"x" * 500, now=0.0)
    (packet,) = a.datagrams_to_send(0.0)
    for length in range(len(packet)):
        b.receive_datagram(packet[:length], 0.0)
    for _ in range(2000):
        b.receive_datagram(rng.randbytes(rng.randrange(200)), 0.0)
    _, parts = parse_packet(packet)
    b.receive_datagram(build_packet(12345, [build_chunk(*part) for part in parts]), 0.0)
    b.receive_datagram(build_packet(b._local_tag + 1 & 0xFFFFFFFF, [build_chunk(ChunkType.ABORT)]), 0.0)
    assert b.counters["sctp.tag"] == 2
    b.receive_datagram(packet, 0.0)
    events = []
    while (event := b.next_event()) is not None:
        events.append(event)
    assert [e.data for e in events if isinstance(e, MessageReceived)] == [b"x" * 500]


def test_a_flood_of_heartbeats_and_inits_is_bounded() -> None:
    _, b = connected(2)
    init = build_packet(0, [chunks.Init(1, 1 << 20, 1, 1, 1).build(ChunkType.INIT)])
    for _ in range(1000):
        b.receive_datagram(build_packet(b._local_tag, [build_chunk(ChunkType.HEARTBEAT, 0, bytes(1000))]), 0.0)
        b.receive_datagram(init, 0.0)
    assert len(b.datagrams_to_send(0.0)) <= 130
    assert b.counters["sctp.control_flood"] > 1800


@pytest.mark.parametrize(
    ("flags", "second"),
    [(chunks.BEGIN, chunks.BEGIN), (chunks.BEGIN, chunks.BEGIN | chunks.END), (chunks.BEGIN, chunks.UNORDERED)],
)
def test_contradicting_fragments_end_the_association(flags: int, second: int) -> None:
    _, b = connected(3)
    assert b._receiver is not None
    tsn = b._receiver.cumulative + 1 & 0xFFFFFFFF
    pieces = [chunks.build_data(tsn, 0, 0, 53, flags, b"x"), chunks.build_data(tsn + 1, 0, 0, 53, second, b"y")]
    b.receive_datagram(build_packet(b._local_tag, pieces), 0.0)
    assert b.state is State.ENDED
    (packet,) = b.datagrams_to_send(0.0)
    assert parse_packet(packet)[1][0][0] == ChunkType.ABORT


def test_data_without_data_ends_the_association() -> None:
    _, b = connected(3)
    b.receive_datagram(build_packet(b._local_tag, [build_chunk(ChunkType.DATA, 3, bytes(12))]), 0.0)
    while (event := b.next_event()) is not None and not isinstance(event, SctpClosed):
        pass
    assert event == SctpClosed("protocol_violation")


@pytest.mark.parametrize(
    ("kind", "answered", "goes_on"),
    [(0x3F, False, False), (0x7F, True, False), (0xBF, False, True), (0xFF, True, True)],
)
def test_unknown_chunks_follow_their_upper_bits(kind: int, answered: bool, goes_on: bool) -> None:
    _, b = connected(4)
    b.datagrams_to_send(0.0)
    parts = [build_chunk(kind, 0, b"what"), build_chunk(ChunkType.HEARTBEAT, 0, chunks.build_param(1, b"hb"))]
    b.receive_datagram(build_packet(b._local_tag, parts), 0.0)
    kinds = [part[0] for packet in b.datagrams_to_send(0.0) for part in parse_packet(packet)[1]]
    assert (ChunkType.ERROR in kinds) is answered
    assert (ChunkType.HEARTBEAT_ACK in kinds) is goes_on


def acked_by(b: SctpAssociation, now: float) -> list[Sack]:
    out = []
    for packet in b.datagrams_to_send(now):
        out += [chunks.parse_sack(part[2]) for part in parse_packet(packet)[1] if part[0] == ChunkType.SACK]
    return out


def data_packet(b: SctpAssociation, base: int, offset: int, flags: int = 7) -> bytes:
    return build_packet(b._local_tag, [chunks.build_data(base + offset & 0xFFFFFFFF, 0, 0, 53, flags, b"d")])


def quiet(seed: int) -> tuple[SctpAssociation, int]:
    _, b = connected(seed)
    b.datagrams_to_send(0.0)
    assert b._receiver is not None
    return b, b._receiver.cumulative


def test_sack_every_second_packet_or_after_200_ms() -> None:
    b, base = quiet(5)
    b.receive_datagram(data_packet(b, base, 1), 1.0)
    assert not acked_by(b, 1.0)
    assert b.next_timeout() == pytest.approx(1.2)
    b.handle_timeout(1.2)
    assert [s.cumulative for s in acked_by(b, 1.2)] == [base + 1 & 0xFFFFFFFF]
    for offset in (2, 3):
        b.receive_datagram(data_packet(b, base, offset), 2.0)
    assert [s.cumulative for s in acked_by(b, 2.0)] == [base + 3 & 0xFFFFFFFF]
    assert b.next_timeout() is None


def test_sack_at_once_on_gap_duplicate_and_i_bit() -> None:
    b, base = quiet(6)
    b.receive_datagram(data_packet(b, base, 1, 7 | chunks.IMMEDIATE), 1.0)
    assert acked_by(b, 1.0)
    b.receive_datagram(data_packet(b, base, 3), 1.0)
    assert acked_by(b, 1.0)[0].blocks == ((2, 2),)
    b.receive_datagram(data_packet(b, base, 5), 1.0)
    b.receive_datagram(data_packet(b, base, 3), 1.0)
    first, sack = acked_by(b, 1.0)  # one per packet, also when both came before the next turn
    assert first.blocks == sack.blocks == ((2, 2), (4, 4)) and sack.duplicates == (base + 3 & 0xFFFFFFFF,)
    b.receive_datagram(data_packet(b, base, 2), 1.0)
    assert acked_by(b, 1.0)[0].cumulative == base + 3 & 0xFFFFFFFF


def test_reset_requests_we_do_not_serve_are_denied_and_repeats_get_the_same_answer() -> None:
    b, _ = quiet(7)
    assert b._reset is not None
    number = b._reset._expected

    def ask(kind: int, sequence: int) -> tuple[int, int]:
        value = struct.pack(">IHH", sequence, 1, 0)
        packet = build_packet(b._local_tag, [build_chunk(ChunkType.RE_CONFIG, 0, chunks.build_param(kind, value))])
        b.receive_datagram(packet, 0.0)
        (answer,) = b.datagrams_to_send(0.0)
        ((_, content),) = chunks.parse_params(parse_packet(answer)[1][0][2])
        return chunks.parse_reconfig_response(content)

    for i, kind in enumerate((14, 15, 17, 18)):
        sequence = number + i & 0xFFFFFFFF
        assert ask(kind, sequence) == ask(kind, sequence) == (sequence, 2)
    assert ask(14, number + 9 & 0xFFFFFFFF)[1] == 5


def test_a_reset_waits_for_the_data_before_it() -> None:
    a, b = connected(8)
    channel = a.open_channel("c")
    settle(a, b, 0.0)
    a.send(channel, b"last words", now=0.0)
    (lost,) = a.datagrams_to_send(0.0)
    a.close_channel(channel, 0.0)
    (reset,) = a.datagrams_to_send(0.0)
    b.receive_datagram(reset, 0.0)
    events: list[object] = []
    collect: Callable[[], None] = lambda: events.extend(iter(b.next_event, None))  # noqa: E731
    collect()
    assert not [e for e in events if type(e).__name__ == "ChannelClosed"]
    b.receive_datagram(lost, 0.1)
    collect()
    assert [type(e).__name__ for e in events][-2:] == ["MessageReceived", "ChannelClosed"]
