"""Two associations over the emulated network: handshake, delivery, flow control, resets, endings."""

import heapq
import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Literal

import pytest
from support.netem import Wire, run_pair

from lkactor.sctp import (
    ChannelClosed,
    ChannelOpened,
    MessageReceived,
    SctpAssociation,
    SctpClosed,
    SctpConnected,
    SctpEvent,
    SctpLimits,
    SctpSendBufferFull,
    State,
)
from lkactor.sctp.chunks import IMMEDIATE, ChunkType, build_chunk, build_packet, parse_packet


class Peer:
    """An association and what it said. Reads its events at every turn unless `reading` is off."""

    def __init__(self, seed: int, role: Literal["client", "server"], limits: SctpLimits | None = None) -> None:
        self.events: list[SctpEvent] = []
        self.messages: dict[int, list[bytes]] = defaultdict(list)
        self.reading = True
        self.sent: list[bytes] = []
        self.attach(SctpAssociation(rng=random.Random(seed), dtls_role=role, limits=limits))

    def attach(self, sctp: SctpAssociation) -> None:
        self.sctp = sctp
        self.receive_datagram = sctp.receive_datagram
        self.next_timeout = sctp.next_timeout
        self.handle_timeout = sctp.handle_timeout

    def datagrams_to_send(self, now: float) -> list[bytes]:
        self.read()
        out = self.sctp.datagrams_to_send(now)
        self.sent += out
        return out

    def read(self) -> None:
        while self.reading and (event := self.sctp.next_event()) is not None:
            if isinstance(event, MessageReceived):
                self.messages[event.channel_id].append(event.data)
            else:
                self.events.append(event)

    def got(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


class AlmostWrapped(random.Random):
    """Initial TSNs a few below 2**32."""

    def getrandbits(self, k: int) -> int:
        return 0xFFFFFFF0 if k == 32 else super().getrandbits(k)


class Pair:
    def __init__(
        self, seed: int = 1, limits: SctpLimits | None = None, start: str = "a", up: bool = True, **knobs: Any
    ) -> None:
        self.a, self.b = Peer(seed * 2, "client", limits), Peer(seed * 2 + 1, "server", limits)
        self.wire = Wire.symmetric(random.Random(seed), **({"delay": 0.01} | knobs))
        self.now = 0.0
        if up:
            for name in start:
                getattr(self, name).sctp.start(0.0)
            self.run(lambda: bool(self.a.got(SctpConnected)) and bool(self.b.got(SctpConnected)))

    def run(self, until: float | Callable[[], bool], on_step: Callable[[float], None] | None = None) -> None:
        end = self.now + until if isinstance(until, float) else until
        self.now = run_pair(self.a, self.b, self.wire, end, self.now, on_step=on_step)

    def channel(self, **options: Any) -> int:
        channel = self.a.sctp.open_channel("c", **options)
        self.run(lambda: any(e.channel_id == channel for e in self.a.got(ChannelOpened)))
        return channel


BAD: dict[str, Any] = {"loss": 0.05, "delay": 0.02, "jitter": 0.005, "reorder": 0.05, "duplicate": 0.05}


@pytest.mark.parametrize("start", ["a", "b", "ab"])
@pytest.mark.parametrize("seed", range(8))
def test_either_side_or_both_start(start: str, seed: int) -> None:
    knobs = {} if seed == 0 else BAD | {"loss": 0.2}
    pair = Pair(seed, start=start, **knobs)
    for first, second in ((pair.a, pair.b), (pair.b, pair.a)):
        channel = first.sctp.open_channel("x")
        first.sctp.send(channel, b"hello", now=pair.now)
        pair.run(lambda s=second, c=channel: s.messages[c] == [b"hello"])  # type: ignore[misc]
    assert len(pair.a.got(SctpConnected)) == len(pair.b.got(SctpConnected)) == 1


@pytest.mark.parametrize("seed", range(12))
def test_ordered_exactly_once_over_a_bad_network(seed: int) -> None:
    pair = Pair(seed, start="ab", **BAD)
    rng = random.Random(seed)
    sent: dict[int, list[bytes]] = {}
    for _ in range(3):
        channel = pair.channel()
        sent[channel] = [rng.randbytes(rng.choice((0, 1, 50, 1160, 1161, 5000, 64 * 1024))) for _ in range(40)]
    for i in range(40):
        for channel, messages in sent.items():
            pair.a.sctp.send(channel, messages[i], now=pair.now)
            pair.b.sctp.send(channel, messages[i], now=pair.now)
    pair.run(lambda: all(pair.b.messages[c] == m and pair.a.messages[c] == m for c, m in sent.items()))
    pair.run(5.0)
    assert all(pair.b.messages[c] == m and pair.a.messages[c] == m for c, m in sent.items())
    for peer in (pair.a, pair.b):
        assert all(peer.sctp.buffered_amount(c) == 0 for c in sent)
        assert peer.sctp._sender.flight == 0 and peer.sctp._sender.buffered == 0
        assert peer.sctp._receiver is not None and peer.sctp._receiver.buffered == 0


@pytest.mark.parametrize("seed", range(3))
def test_a_megabyte_is_split_and_put_together(seed: int) -> None:
    pair = Pair(seed, SctpLimits(max_message_size=2_000_000, receive_window=3_000_000), **BAD)
    channel = pair.channel()
    big = random.Random(seed).randbytes(1_000_000)
    pair.a.sctp.send(channel, big, now=pair.now)
    pair.run(lambda: pair.b.messages[channel] == [big])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("size", [100, 4000])
@pytest.mark.parametrize("ordered", [False, True])
def test_zero_retransmits_loses_and_never_blocks(seed: int, size: int, ordered: bool) -> None:
    pair = Pair(seed, **BAD)
    channel = pair.channel(ordered=ordered, max_retransmits=0)
    sent = [i.to_bytes(4, "big") * (size // 4) for i in range(500)]
    for message in sent:
        pair.a.sctp.send(channel, message, now=pair.now)
        pair.run(0.01 if size == 100 else 0.06)  # what congestion control lets through at this loss
    pair.run(3.0)
    got = pair.b.messages[channel]
    assert len(set(got)) == len(got) < len(sent)
    assert len(got) > (0.85 if size == 100 else 0.6) * len(sent)
    assert set(got) <= set(sent)
    assert not ordered or got == sorted(got)
    assert pair.a.sctp.buffered_amount(channel) == 0
    # whatever was given up does not stand in the way of a reliable channel
    reliable = pair.channel()
    pair.a.sctp.send(reliable, b"after", now=pair.now)
    pair.run(lambda: pair.b.messages[reliable] == [b"after"])


def test_lifetime_gives_up_what_is_late() -> None:
    pair = Pair(3, rate_bps=400_000.0)
    channel = pair.channel(max_lifetime_ms=200)
    for i in range(200):
        pair.a.sctp.send(channel, bytes([i]) * 1000, now=pair.now)
    pair.run(5.0)
    got = [message[0] for message in pair.b.messages[channel]]
    assert 0 < len(got) < 60 and got == sorted(got)
    assert pair.a.sctp.counters["sctp.expired_unsent"] > 100
    assert pair.a.sctp.buffered_amount(channel) == 0


def test_a_big_reliable_queue_does_not_block_a_lossy_channel() -> None:
    pair = Pair(2, rate_bps=8_000_000.0)
    bulk, lossy = pair.channel(), pair.channel(ordered=False, max_retransmits=0)
    for _ in range(200):
        pair.a.sctp.send(bulk, bytes(16 * 1024), now=pair.now)
    pair.a.sctp.send(lossy, b"quick", now=pair.now)
    pair.run(lambda: pair.b.messages[lossy] == [b"quick"])
    assert len(pair.b.messages[bulk]) < 5


def test_pause_closes_the_window_and_resume_opens_it() -> None:
    pair = Pair(4)
    channel = pair.channel()
    pair.b.sctp.pause_receive(True)
    for i in range(64):
        pair.a.sctp.send(channel, bytes([i]) * 64 * 1024, now=pair.now)
    pair.run(30.0)
    taken = sum(map(len, pair.b.messages[channel]))
    assert 900_000 < taken <= 1024 * 1024
    assert pair.a.sctp.buffered_amount(channel) >= 64 * 64 * 1024 - 1024 * 1024 - 2000
    assert pair.a.sctp.state is State.ESTABLISHED  # probes of a shut window are no sign of death
    pair.b.sctp.pause_receive(False)
    at = pair.now
    pair.run(lambda: len(pair.b.messages[channel]) == 64)
    assert pair.now - at < 5.0
    assert [message[0] for message in pair.b.messages[channel]] == list(range(64))


def test_unread_events_close_the_window_too() -> None:
    pair = Pair(4)
    channel = pair.channel()
    pair.b.reading = False
    for i in range(40):
        pair.a.sctp.send(channel, bytes([i]) * 64 * 1024, now=pair.now)
    pair.run(5.0)
    assert pair.b.sctp._channels.event_bytes <= 1024 * 1024
    pair.b.reading = True
    pair.run(lambda: len(pair.b.messages[channel]) == 40)


def test_send_buffer_is_bounded() -> None:
    pair = Pair(5, SctpLimits(max_send_buffer=100_000), up=False)
    channel = pair.a.sctp.open_channel("c")
    pair.a.sctp.send(channel, bytes(90_000), now=0.0)
    with pytest.raises(SctpSendBufferFull):
        pair.a.sctp.send(channel, bytes(20_000), now=0.0)
    assert pair.a.sctp.buffered_amount(channel) >= 90_000
    pair.a.sctp.start(0.0)
    pair.run(lambda: pair.b.messages[channel] == [bytes(90_000)])
    pair.run(1.0)
    assert pair.a.sctp.buffered_amount(channel) == 0
    pair.a.sctp.send(channel, bytes(20_000), now=pair.now)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("closer", ["a", "b"])
def test_close_resets_both_directions_and_frees_the_id(seed: int, closer: str) -> None:
    pair = Pair(seed, **BAD)
    for round_ in range(3):
        channel = pair.channel()
        assert channel == 0
        side = getattr(pair, closer)
        other = pair.b if closer == "a" else pair.a
        for i in range(20):
            side.sctp.send(channel, bytes([round_, i]), now=pair.now)
        side.sctp.close_channel(channel, pair.now)
        side.sctp.send(channel, b"too late", now=pair.now)
        pair.run(lambda n=round_: min(len(p.got(ChannelClosed)) for p in (pair.a, pair.b)) > n)  # type: ignore[misc]
        assert other.messages[channel][-20:] == [bytes([round_, i]) for i in range(20)]
        pair.run(lambda: not pair.a.sctp._channels._by_id and not pair.b.sctp._channels._by_id)
        pair.a.events = [e for e in pair.a.events if not isinstance(e, ChannelOpened)]
    assert side.sctp.counters["sctp.send_on_closed"] == 3


def test_dcep_carries_every_option_and_ids_follow_the_role() -> None:
    pair = Pair(6)
    options: list[dict[str, Any]] = [
        {},
        {"ordered": False},
        {"max_retransmits": 0},
        {"ordered": False, "max_retransmits": 7},
        {"max_lifetime_ms": 100},
        {"ordered": False, "max_lifetime_ms": 65536, "protocol": "p\u00fc"},
    ]
    ids = [pair.a.sctp.open_channel(f"l{i}\u00e9", **option) for i, option in enumerate(options)]
    assert ids == [0, 2, 4, 6, 8, 10]
    assert pair.b.sctp.open_channel("odd") == 1
    pair.run(1.0)
    opened = {event.channel_id: event for event in pair.b.got(ChannelOpened)}
    for i, (channel, option) in enumerate(zip(ids, options, strict=True)):
        event = opened[channel]
        assert event.label == f"l{i}\u00e9" and event.remote
        for name in ("ordered", "max_retransmits", "max_lifetime_ms", "protocol"):
            default: dict[str, Any] = {"ordered": True, "protocol": ""}
            assert getattr(event, name) == option.get(name, default.get(name))
    assert [e.remote for e in pair.a.got(ChannelOpened)].count(False) == 6


def test_all_payload_types_and_messages_before_the_ack() -> None:
    pair = Pair(7)
    channel = pair.a.sctp.open_channel("c", ordered=False)
    pair.a.sctp.send(channel, b"early", now=pair.now)
    pair.a.sctp.send(channel, b"", now=pair.now)
    pair.a.sctp.send(channel, b"", binary=False, now=pair.now)
    pair.a.sctp.send(channel, b"text", binary=False, now=pair.now)
    pair.b.reading = False
    pair.run(1.0)
    events = []
    while (event := pair.b.sctp.next_event()) is not None:
        events.append(event)
    assert isinstance(events[0], ChannelOpened)
    assert [(e.data, e.binary) for e in events if isinstance(e, MessageReceived)] == [
        (b"early", True),
        (b"", True),
        (b"", False),
        (b"text", False),
    ]


def test_negotiated_channels_need_no_dcep() -> None:
    pair = Pair(8, up=False)
    for peer in (pair.a, pair.b):
        assert peer.sctp.open_channel("n", negotiated=True, channel_id=100) == 100
    pair.a.sctp.send(100, b"x", now=0.0)
    pair.a.sctp.start(0.0)
    pair.run(lambda: pair.b.messages[100] == [b"x"])
    assert len(pair.a.got(ChannelOpened)) == len(pair.b.got(ChannelOpened)) == 1


def test_open_of_the_wrong_parity_or_on_a_used_id_is_refused() -> None:
    pair = Pair(9)
    wrong = pair.a.sctp.open_channel("wrong", channel_id=5)
    pair.run(lambda: bool(pair.a.got(ChannelClosed)))
    assert pair.a.got(ChannelClosed) == [ChannelClosed(wrong)]
    assert not pair.b.got(ChannelOpened)
    used = pair.b.sctp.open_channel("used", negotiated=True, channel_id=2)
    pair.a.sctp.open_channel("collides", channel_id=2)
    pair.run(2.0)
    assert pair.b.sctp.counters["dcep.collision"] == 1
    assert [e.channel_id for e in pair.b.got(ChannelOpened)] == [used]


def test_impossible_channels_are_refused_to_the_caller() -> None:
    sctp = Pair(9, SctpLimits(max_channels=3), up=False).a.sctp
    for options in (
        {"max_retransmits": 1, "max_lifetime_ms": 1},
        {"negotiated": True},
        {"channel_id": 1024},
        {"channel_id": -1},
    ):
        with pytest.raises(ValueError):
            sctp.open_channel("x", **options)
    for _ in range(3):
        sctp.open_channel("x")
    with pytest.raises(ValueError):
        sctp.open_channel("x")


def test_too_large_a_message_closes_its_channel_only() -> None:
    pair = Pair(10, SctpLimits(max_message_size=10_000))
    bad, good = pair.channel(), pair.channel()
    pair.a.sctp.send(bad, bytes(50_000), now=pair.now)
    pair.a.sctp.send(good, b"fine", now=pair.now)
    pair.run(lambda: ChannelClosed(bad) in pair.a.events)
    pair.run(lambda: pair.b.messages[good] == [b"fine"])
    assert not pair.b.messages[bad]
    assert pair.b.sctp.counters["sctp.message_too_large"] == 1
    assert pair.b.sctp._receiver is not None and pair.b.sctp._receiver.buffered == 0


def test_a_dead_peer_ends_the_association() -> None:
    pair = Pair(11, SctpLimits(max_retransmits=4))
    channel = pair.channel()
    pair.wire.there.loss = 1.0
    pair.a.sctp.send(channel, b"anyone?", now=pair.now)
    pair.run(lambda: bool(pair.a.got(SctpClosed)))
    assert pair.a.got(SctpClosed) == [SctpClosed("retransmission_limit")]
    assert ChannelClosed(channel) in pair.a.events
    assert pair.a.next_timeout() is None


def test_nobody_answers_the_init() -> None:
    pair = Pair(11, up=False, loss=1.0)
    pair.a.sctp.start(0.0)
    pair.run(lambda: bool(pair.a.got(SctpClosed)))
    assert pair.a.got(SctpClosed) == [SctpClosed("handshake_timeout")]
    assert pair.wire.there.counters["sent"] == 9


def test_heartbeats_find_a_dead_peer_while_idle() -> None:
    pair = Pair(12, SctpLimits(heartbeat_interval=5.0, max_retransmits=3))
    pair.run(60.0)
    assert not pair.a.got(SctpClosed) and "sctp.heartbeat_ack_unexpected" not in pair.a.sctp.counters
    pair.wire.there.loss = pair.wire.back.loss = 1.0
    pair.run(60.0)
    assert pair.a.got(SctpClosed) == pair.b.got(SctpClosed) == [SctpClosed("retransmission_limit")]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("both", [False, True])
def test_shutdown_delivers_what_is_queued(seed: int, both: bool) -> None:
    pair = Pair(seed, **BAD)
    channel = pair.channel()
    for i in range(50):
        pair.a.sctp.send(channel, bytes([i]) * 3000, now=pair.now)
    pair.a.sctp.shutdown(pair.now)
    if both:
        pair.b.sctp.shutdown(pair.now)
    pair.run(lambda: bool(pair.a.got(SctpClosed)) and bool(pair.b.got(SctpClosed)))
    assert len(pair.b.messages[channel]) == 50
    assert pair.a.got(SctpClosed)[0].reason == "shutdown"


def test_abort_ends_both() -> None:
    pair = Pair(13)
    pair.a.sctp.abort(pair.now)
    pair.run(lambda: bool(pair.b.got(SctpClosed)))
    assert pair.a.got(SctpClosed) == [SctpClosed("aborted_locally")]
    assert pair.b.got(SctpClosed) == [SctpClosed("aborted")]
    pair.a.receive_datagram(build_packet(pair.a.sctp._local_tag, [build_chunk(ChunkType.COOKIE_ACK)]), pair.now)
    assert pair.a.sctp.counters["sctp.after_end"] == 1


def test_the_peer_may_restart() -> None:
    pair = Pair(14)
    channel = pair.channel()
    pair.a.sctp.send(channel, b"lost with it", now=pair.now)
    pair.b = Peer(99, "server")
    pair.b.sctp.start(pair.now)
    fresh = pair.b.sctp.open_channel("again")
    pair.b.sctp.send(fresh, b"hi", now=pair.now)
    pair.run(lambda: pair.a.messages[fresh] == [b"hi"])
    assert ChannelClosed(channel) in pair.a.events
    assert len(pair.a.got(SctpConnected)) == 2
    assert pair.a.sctp.counters["sctp.peer_restarted"] == 1


def test_stale_and_forged_cookies_are_refused() -> None:
    a, b = Peer(1, "client"), Peer(2, "server")
    a.sctp.start(0.0)
    b.receive_datagram(a.datagrams_to_send(0.0)[0], 0.0)
    a.receive_datagram(b.datagrams_to_send(0.0)[0], 0.0)
    echo = a.datagrams_to_send(0.0)[0]
    tag, parts = parse_packet(echo)
    forged = bytearray(parts[0][2])
    forged[40] ^= 1
    b.receive_datagram(build_packet(tag, [build_chunk(ChunkType.COOKIE_ECHO, 0, bytes(forged))]), 0.0)
    assert b.sctp.counters["sctp.cookie_signature"] == 1
    b.receive_datagram(echo, 61.0)
    assert b.sctp.counters["sctp.cookie_stale"] == 1
    assert b.sctp.state is State.CLOSED
    a.receive_datagram(b.datagrams_to_send(61.0)[0], 61.0)
    assert a.sctp.state is State.COOKIE_WAIT


def test_data_rides_with_cookie_echo_and_overtakes_cookie_ack() -> None:
    a, b = Peer(1, "client"), Peer(2, "server")
    channel = a.sctp.open_channel("c")
    other = b.sctp.open_channel("d")
    a.sctp.start(0.0)
    b.receive_datagram(a.datagrams_to_send(0.0)[0], 0.0)
    a.receive_datagram(b.datagrams_to_send(0.0)[0], 0.0)
    (echo,) = a.datagrams_to_send(0.0)
    tag, parts = parse_packet(echo)
    data = a.sctp._sender.poll(0.0)
    assert data is not None
    b.receive_datagram(build_packet(tag, [build_chunk(ChunkType.COOKIE_ECHO, 0, parts[0][2]), data.wire]), 0.0)
    b.read()
    assert [e.channel_id for e in b.got(ChannelOpened)] == [channel]
    (answer,) = b.datagrams_to_send(0.0)
    tag, parts = parse_packet(answer)
    kinds = [kind for kind, _, _ in parts]
    assert ChunkType.COOKIE_ACK in kinds and ChunkType.DATA in kinds
    late = [build_chunk(*part) for part in parts if part[0] != ChunkType.COOKIE_ACK]
    a.receive_datagram(build_packet(tag, late), 0.0)
    a.read()
    assert other in [e.channel_id for e in a.got(ChannelOpened)]
    a.receive_datagram(build_packet(tag, [build_chunk(ChunkType.COOKIE_ACK)]), 0.0)
    assert a.sctp.state is State.ESTABLISHED


def test_the_same_seed_gives_the_same_packets() -> None:
    def trace() -> list[bytes]:
        pair = Pair(5, **BAD)
        channel = pair.channel()
        pair.a.sctp.send(channel, bytes(200_000), now=pair.now)
        pair.run(5.0)
        return pair.a.sent + pair.b.sent

    assert trace() == trace()


@pytest.mark.parametrize("seed", range(4))
def test_tsn_wraps(seed: int) -> None:
    pair = Pair(seed, up=False, **BAD)
    for peer, role in ((pair.a, "client"), (pair.b, "server")):
        sctp = SctpAssociation(rng=AlmostWrapped(seed + len(role)), dtls_role=role)  # type: ignore[arg-type]
        assert sctp._local_tsn == 0xFFFFFFF0
        peer.attach(sctp)
    pair.a.sctp.start(0.0)
    reliable = pair.a.sctp.open_channel("r")
    lossy = pair.a.sctp.open_channel("l", max_retransmits=0)
    for i in range(100):
        pair.a.sctp.send(reliable, bytes([i]) * 2000, now=0.0)
        pair.a.sctp.send(lossy, bytes([i]) * 10, now=0.0)
    pair.a.sctp.close_channel(reliable, 0.0)
    pair.run(lambda: ChannelClosed(reliable) in pair.a.events and ChannelClosed(reliable) in pair.b.events)
    assert [message[0] for message in pair.b.messages[reliable]] == list(range(100))
    pair.run(3.0)
    assert pair.a.sctp.buffered_amount(lossy) == 0


def test_ssn_wraps() -> None:
    pair = Pair(1, SctpLimits(max_send_buffer=1 << 26))
    channel = pair.channel()
    for i in range(66_000):
        pair.a.sctp.send(channel, i.to_bytes(3, "big"), now=pair.now)
    pair.run(lambda: len(pair.b.messages[channel]) == 66_000)
    assert pair.b.messages[channel] == [i.to_bytes(3, "big") for i in range(66_000)]


def test_a_single_loss_is_repaired_by_fast_retransmit_alone() -> None:
    pair = Pair(1, delay=0.05)
    channel = pair.channel()
    for _ in range(60):
        pair.a.sctp.send(channel, bytes(20_000), now=pair.now)
    pair.run(lambda: len(pair.wire.there._heap) > 8)
    pair.wire.there._heap.pop(0)  # one packet on its way vanishes
    heapq.heapify(pair.wire.there._heap)
    cwnd = pair.a.sctp._sender.cwnd
    pair.run(lambda: len(pair.b.messages[channel]) == 60)
    assert pair.a.sctp.counters == {"sctp.fast_retransmit": 1}
    assert cwnd // 2 <= pair.a.sctp._sender.ssthresh < cwnd


def test_slow_start_is_not_starved_by_bursts() -> None:
    """Packets arrive in bursts, but each second one is acknowledged: the window doubles per round trip."""
    pair = Pair(1, delay=0.05)
    channel = pair.channel()
    for _ in range(40):
        pair.a.sctp.send(channel, bytes(50_000), now=pair.now)
    at = pair.now
    pair.run(lambda: len(pair.b.messages[channel]) == 40)
    assert pair.now - at < 1.5


def test_what_fills_the_peers_window_asks_for_its_sack() -> None:
    """RFC 7053 section 4.1: else a peer that delays its SACKs is waited for at each window."""

    def immediate(window: int, messages: int) -> list[bool]:
        pair = Pair(1, SctpLimits(receive_window=window))
        channel = pair.channel()
        pair.a.sent.clear()
        for _ in range(messages):
            pair.a.sctp.send(channel, bytes(1000), now=pair.now)
        pair.run(lambda: len(pair.b.messages[channel]) == messages)
        parts = [part for packet in pair.a.sent for part in parse_packet(packet)[1]]
        return [bool(flags & IMMEDIATE) for kind, flags, _ in parts if kind == ChunkType.DATA]

    assert immediate(4000, 3) == [False, False, True]
    assert not any(immediate(1024 * 1024, 40))


def test_a_reader_whose_peer_never_says_that_its_window_opens_is_asked_five_times_a_second() -> None:
    pair = Pair(1, SctpLimits(receive_window=4000))
    channel = pair.channel()
    pair.b.reading = False
    for _ in range(100):
        pair.a.sctp.send(channel, bytes(1000), now=pair.now)
    pair.run(30.0)
    assert 100 < pair.a.sctp.counters["sctp.t3"] < 200
    pair.b.sctp.datagrams_to_send = lambda now, send=pair.b.sctp.datagrams_to_send: []  # type: ignore[method-assign]
    pair.b.reading = True
    pair.b.read()  # Whatever it says of its window is lost.
    del pair.b.sctp.datagrams_to_send
    at = pair.now
    pair.run(lambda: len(pair.b.messages[channel]) == 100)
    assert pair.now - at < 1.0


def test_t3_backs_off_and_recovers_after_an_outage() -> None:
    pair = Pair(1)
    channel = pair.channel()
    pair.wire.there.loss = 1.0
    pair.a.sctp.send(channel, bytes(100_000), now=pair.now)
    pair.run(10.0)
    assert 3 <= pair.a.sctp.counters["sctp.t3"] <= 6
    assert pair.a.sctp._sender.cwnd == 1191
    pair.wire.there.loss = 0.0
    pair.run(lambda: pair.b.messages[channel] == [bytes(100_000)])


def test_chunks_are_bundled_up_to_the_mtu() -> None:
    pair = Pair(1)
    channel = pair.channel()
    pair.a.sent.clear()
    for _ in range(100):
        pair.a.sctp.send(channel, bytes(40), now=pair.now)
    pair.run(lambda: len(pair.b.messages[channel]) == 100)
    assert max(map(len, pair.a.sent)) <= 1191
    assert len(pair.a.sent) <= 8
    pair.a.sctp.send(channel, bytes(60_000), now=pair.now)
    pair.run(1.0)
    assert 1180 <= max(map(len, pair.a.sent)) <= 1191
