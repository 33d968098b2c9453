"""Who comes right after a key frame begins with that one; who comes later waits for the next."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from support.media import Sink, VideoSource, forwarder_for, ids_of, video_format, video_leg

from lkactor.sfu import Leg, TrackForwarder
from lkactor.sfu.catchup import AGE, MOST
from lkactor.sfu.keyframes import CAUGHT_UP_AT_ONCE, PAUSE
from lkactor.wire.rtcp import Pli

FRAME = 1 / 30


class Stage:
    """A publisher of one layer who answers every PLI with a key frame, 30 frames a second."""

    def __init__(self, *, packets: int = 2) -> None:
        self.forwarder, self.publisher = forwarder_for(video_format(simulcast=False, layers=()))
        self.source = VideoSource(1)
        self.now = 0.0
        self.packets = packets
        self.keys: list[float] = []

    def run(self, until: float, *, lose: int = -1) -> None:
        """`lose`: the sequence number of a packet that never arrives."""
        while self.now < until:
            self.forwarder.handle_timeout(self.now)
            key = bool(self.publisher.take_rtcp(Pli)) or not self.keys
            if key:
                self.keys.append(self.now)
            frame = self.source.frame(self.now, key=key, packets=self.packets)
            self.forwarder.receive(0, [packet for packet in frame if packet.sequence != lose], self.now)
            self.now += FRAME

    def join(self, number: int) -> tuple[Leg, Sink]:
        sink = Sink()
        leg = video_leg(sink, ssrc=1 + 2 * number, subscriber=f"PA_{number}")
        self.forwarder.add_leg(leg, self.now)
        self.forwarder.handle_timeout(self.now)
        return leg, sink


def waits(forwarder: TrackForwarder, leg: Leg) -> bool:
    return not leg.munger.started


def test_a_second_viewer_begins_with_the_key_frame_of_the_first() -> None:
    stage = Stage()
    stage.run(1.0)
    _, first = stage.join(1)
    stage.run(1.3)
    assert len(stage.keys) == 2
    leg, second = stage.join(2)
    seen = second.take()
    assert leg.munger.started and seen
    assert ids_of(seen[0]).begins_keyframe(seen[0].payload)
    assert [packet.payload for packet in seen] == [packet.payload for packet in first.take()][-len(seen) :]
    stage.run(1.6)
    seen += second.take()
    assert [(b.sequence - a.sequence) & 0xFFFF for a, b in pairwise(seen)] == [1] * (len(seen) - 1)
    assert {b.timestamp - a.timestamp for a, b in pairwise(seen)} <= {0, 3000}
    assert len(stage.keys) == 3, "the publisher is asked all the same, as soon as the throttle allows"


def test_padding_in_the_past_leaves_no_hole() -> None:
    """A publisher that looks for more bandwidth pads; nobody could send a hole again, and a player waits for it."""
    stage = Stage()
    stage.run(1.0)
    stage.join(1)
    stage.run(1.1)
    for _ in range(3):
        stage.forwarder.receive(0, [stage.source.padding(stage.now)], stage.now)
    stage.run(1.3)
    leg, second = stage.join(2)
    seen = second.take()
    assert leg.munger.started and seen
    stage.run(1.4)
    seen += second.take()
    assert all(packet.payload for packet in seen)
    assert [(b.sequence - a.sequence) & 0xFFFF for a, b in pairwise(seen)] == [1] * (len(seen) - 1)
    pictures = [ids_of(packet).picture_id for packet in seen]
    assert {(b - a) & 0x7FFF for a, b in pairwise(pictures)} <= {0, 1}


def test_numbers_go_on_with_the_packets_of_now() -> None:
    """Also where the plane has them: the leg is in its steady state at once."""
    stage = Stage()
    stage.run(1.0)
    stage.join(1)
    stage.run(1.2)
    leg, sink = stage.join(2)
    before = len(sink.take())
    stage.run(1.4)
    after = sink.take()
    assert before and len(after) == 2 * 6
    assert leg.packets == before + len(after)
    assert leg.last_sequence == after[-1].sequence


def test_the_plane_sends_what_it_can_of_the_past() -> None:
    """Nothing is left to Python but the key frame's first packet, which decides."""
    stage = Stage()
    stage.run(1.0)
    stage.join(1)
    stage.run(1.2)
    forwarder, written = stage.forwarder, 0
    write = forwarder._writer.write

    def count(*args: Any) -> Any:
        nonlocal written
        written += 1
        return write(*args)

    forwarder._writer.write = count  # type: ignore[method-assign]
    sinks = [stage.join(number)[1] for number in range(2, 5)]
    past = [len(sink.take()) for sink in sinks]
    assert past == [past[0]] * 3 and past[0] > 8
    in_steady_state = forwarder._fanout.past_cost(past[0]) < past[0]
    assert written == (3 if in_steady_state else sum(past))


def test_who_comes_later_than_that_waits_for_the_next() -> None:
    stage = Stage()
    stage.run(1.0)
    stage.join(1)
    stage.run(1.0 + AGE + 0.1)
    leg, sink = stage.join(2)
    assert waits(stage.forwarder, leg) and not sink.take()
    stage.run(2.0)
    assert leg.munger.started and len(stage.keys) == 3


def test_too_many_packets_are_not_sent_at_once() -> None:
    stage = Stage(packets=MOST // 5)
    stage.run(1.0)
    stage.join(1)
    stage.run(1.3)
    leg, sink = stage.join(2)
    assert waits(stage.forwarder, leg) and not sink.take()


def test_with_a_hole_in_it_nothing_is_sent() -> None:
    stage = Stage()
    stage.run(1.0)
    stage.join(1)
    stage.run(1.1)
    stage.run(1.3, lose=stage.source.sequence)
    leg, sink = stage.join(2)
    assert waits(stage.forwarder, leg) and not sink.take()


def test_a_source_that_has_begun_anew_has_no_past() -> None:
    stage = Stage()
    stage.run(1.0)
    stage.join(1)
    stage.run(1.2)
    stage.source = VideoSource(2, sequence=7, timestamp=99)
    stage.forwarder.receive(0, stage.source.frame(stage.now), stage.now)
    leg, sink = stage.join(2)
    assert waits(stage.forwarder, leg) and not sink.take()


def test_a_leg_that_has_been_served_is_not_sent_the_same_again() -> None:
    stage = Stage()
    stage.run(1.0)
    leg, sink = stage.join(1)
    stage.run(1.2)
    stage.forwarder.set_paused(leg, True, stage.now)
    stage.forwarder.set_paused(leg, False, stage.now)
    sink.take()
    stage.forwarder.handle_timeout(stage.now)
    assert not sink.take() and leg.need_switch


def test_nobody_gets_the_past_of_a_muted_track() -> None:
    stage = Stage()
    stage.run(1.0)
    stage.join(1)
    stage.run(1.2)
    stage.forwarder.set_muted(True, stage.now)
    leg, sink = stage.join(2)
    assert waits(stage.forwarder, leg) and not sink.take()


def test_a_crowd_is_served_a_few_at_a_time_and_soon() -> None:
    """What is sent in one go stops the media of everybody else for as long."""
    stage = Stage()
    stage.run(1.0)
    stage.join(1)
    stage.run(1.3)
    sinks = [Sink() for _ in range(40)]
    for number, sink in enumerate(sinks):
        stage.forwarder.add_leg(video_leg(sink, ssrc=101 + 2 * number, subscriber=f"PA_c{number}"), stage.now)
    seen = [0] * len(sinks)
    while not all(seen):
        due = stage.forwarder.next_timeout()
        assert due is not None and due <= stage.now + PAUSE, "somebody waits for the past"
        stage.now = due
        stage.forwarder.handle_timeout(stage.now)
        sent = [sink.take() for sink in sinks]
        served = [len(packets) for packets in sent if packets]
        assert served and (len(served) - 1) * stage.forwarder._fanout.past_cost(max(served)) < CAUGHT_UP_AT_ONCE
        for number, packets in enumerate(sent):
            assert not (packets and seen[number]), "the past is sent once"
            if packets:
                assert ids_of(packets[0]).begins_keyframe(packets[0].payload)
            seen[number] += len(packets)
