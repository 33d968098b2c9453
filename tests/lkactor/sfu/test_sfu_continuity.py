"""What one subscriber sees over switches, loss and reordering, by a verifier that knows nothing of the munger."""

import itertools
import random

import pytest
from support.media import Sink, VideoSource, forwarder_for, ids_of, video_format, video_leg

FRAME = 1 / 30


class Verifier:
    """Holds a subscriber's packets against what a decoder needs; every number is unwrapped from the wire alone."""

    def __init__(self, packets):
        self.packets = packets
        self.sequences = self._unwrap([p.sequence for p in packets], 16)
        self.timestamps = self._unwrap([p.timestamp for p in packets], 32)
        self.pictures = self._unwrap([ids_of(p).picture_id for p in packets], 15)
        self.tl0s = self._unwrap([ids_of(p).tl0picidx for p in packets], 8)
        self.keyidxs = self._unwrap([ids_of(p).keyidx for p in packets], 5)

    @staticmethod
    def _unwrap(values, bits):
        out = []
        for value in values:
            last = out[-1] if out else value
            half = 1 << (bits - 1)
            out.append(last + ((value - last + half) % (2 * half)) - half)
        return out

    def continuous(self):
        """No loss upstream: no hole, no repetition, one step per frame."""
        assert self.sequences == list(range(self.sequences[0], self.sequences[0] + len(self.packets)))
        for index in range(1, len(self.packets)):
            new_frame = self.packets[index - 1].marker
            step = 1 if new_frame else 0
            assert self.pictures[index] - self.pictures[index - 1] == step
            assert self.tl0s[index] - self.tl0s[index - 1] == step
            assert self.keyidxs[index] - self.keyidxs[index - 1] in ((0, 1) if new_frame else (0,))
            elapsed = self.timestamps[index] - self.timestamps[index - 1]
            assert elapsed > 0 if new_frame else elapsed == 0

    def in_order_of_arrival_or_late(self):
        """With loss: numbers are unique, and a higher number never has an earlier time or picture."""
        assert len(set(self.sequences)) == len(self.sequences)
        ordered = sorted(zip(self.sequences, self.timestamps, self.pictures, strict=True))
        for before, after in itertools.pairwise(ordered):
            assert after[1] >= before[1] and after[2] >= before[2]


class Stage:
    """Three layers of one camera with clocks that have nothing in common, at 30 frames per second."""

    def __init__(self, *, reports=True):
        self.forwarder, self.publisher = forwarder_for(video_format())
        self.sink = Sink()
        self.leg = video_leg(self.sink)
        self.forwarder.add_leg(self.leg, 0.0)
        self.sources = [
            VideoSource(1, sequence=65500, timestamp=0xFFFFF000, picture=32760),
            VideoSource(2, sequence=20, timestamp=77_000_000, picture=5),
            VideoSource(3, sequence=40000, timestamp=2_000_000_000, picture=9000),
        ]
        self.now, self.reports = 0.0, reports
        if reports:
            self.report()

    def report(self):
        for layer, source in enumerate(self.sources):
            self.forwarder.on_sender_report(layer, source.report(self.now), self.now, self.now)

    def frames(self, count, *, key=(), layers=(0, 1, 2)):
        """`key`: layers whose first frame is a key frame."""
        for index in range(count):
            for layer, source in enumerate(self.sources):
                burst = source.frame(self.now, key=index == 0 and layer in key)
                if layer in layers:
                    self.forwarder.receive(layer, burst, self.now)
            if self.reports and index == 0:
                self.report()
            self.now += FRAME
            self.forwarder.handle_timeout(self.now)


def test_up_and_down_all_layers():
    stage = Stage()
    stage.frames(10, key=(0,))
    assert stage.leg.current_layer == 0
    stage.frames(10, key=(1,))
    assert stage.leg.current_layer == 1
    stage.frames(10, key=(2,))
    assert stage.leg.current_layer == 2
    stage.leg.target_layer = 0
    stage.frames(10, key=(1,))
    assert stage.leg.current_layer == 1
    stage.frames(10, key=(0,))
    assert stage.leg.current_layer == 0
    verifier = Verifier(stage.sink.rtp)
    verifier.continuous()
    # On the way up the new layer repeats a moment that the old one has shown: two frames more, a tick apart.
    assert len(stage.sink.rtp) == 2 * (50 + 2)
    # 30 frames per second throughout, whatever the layer: the switches cost or win no time.
    assert verifier.timestamps[-1] - verifier.timestamps[0] == pytest.approx(49 * 3000, abs=4)


def test_no_switch_without_a_key_frame_or_past_the_target():
    stage = Stage()
    stage.leg.target_layer = 1
    stage.frames(10, key=(0,))
    stage.frames(10)
    assert stage.leg.current_layer == 0
    stage.frames(10, key=(2,))
    assert stage.leg.current_layer == 0
    stage.frames(10, key=(1,))
    assert stage.leg.current_layer == 1


def test_a_switch_waits_for_sender_reports_but_the_start_does_not():
    stage = Stage(reports=False)
    stage.frames(5, key=(0,))
    assert stage.leg.current_layer == 0
    stage.frames(5, key=(2,))
    assert stage.leg.current_layer == 0
    stage.reports = True
    stage.report()
    stage.frames(5, key=(2,))
    assert stage.leg.current_layer == 2
    Verifier(stage.sink.rtp).continuous()


def test_a_publisher_that_never_reports_is_switched_by_wall_clock():
    stage = Stage(reports=False)
    stage.frames(5, key=(0,))
    for _ in range(5):
        stage.frames(30, key=(2,))
    assert stage.leg.current_layer == 2
    verifier = Verifier(stage.sink.rtp)
    verifier.continuous()
    frames = sum(p.marker for p in stage.sink.rtp)
    assert verifier.timestamps[-1] - verifier.timestamps[0] == pytest.approx((frames - 1) * 3000, abs=3000)


def test_a_layer_that_lags_is_refused():
    stage = Stage()
    stage.frames(5, key=(0,))
    stage.sources[2].timestamp -= 90000 // 5
    for _ in range(2):
        burst = stage.sources[2].frame(stage.now, key=True)
        stage.forwarder.receive(2, burst, stage.now)
        assert stage.leg.current_layer == 0
    stage.sources[2].timestamp += 90000 // 5
    stage.frames(2, key=(2,))
    assert stage.leg.current_layer == 2
    Verifier(stage.sink.rtp).continuous()


def test_a_layer_that_ends_is_left_for_one_that_lives():
    stage = Stage()
    stage.frames(5, key=(0,))
    stage.frames(5, key=(2,))
    assert stage.leg.current_layer == 2
    stage.publisher.rtcp.clear()
    stage.frames(60, layers=(0, 1))
    assert {packet.media_ssrc for packet in stage.publisher.rtcp if type(packet).__name__ == "Pli"} == {2}
    stage.frames(5, key=(1,), layers=(0, 1))
    assert stage.leg.current_layer == 1
    Verifier(stage.sink.rtp).continuous()


def test_larger_than_wanted_is_taken_when_there_is_nothing_else_and_dialled_back():
    stage = Stage()
    stage.leg.target_layer = 0
    stage.frames(5, key=(2,), layers=(2,))
    assert stage.leg.current_layer == 2
    stage.frames(1)
    stage.frames(5, key=(0,))
    assert stage.leg.current_layer == 0
    Verifier(stage.sink.rtp).continuous()


def test_pauses_and_mutes_leave_no_hole():
    stage = Stage()
    stage.frames(5, key=(0,))
    for close, reopen in (
        (lambda: stage.forwarder.set_paused(stage.leg, True, stage.now),
         lambda: stage.forwarder.set_paused(stage.leg, False, stage.now)),
        (lambda: stage.forwarder.set_muted(True, stage.now), lambda: stage.forwarder.set_muted(False, stage.now)),
    ):  # fmt: skip
        close()
        stage.frames(20)
        reopen()
        stage.frames(5)
        stage.frames(5, key=(0,), layers=(0,))
    Verifier(stage.sink.rtp).continuous()
    assert len(stage.sink.rtp) == 2 * 15


@pytest.mark.parametrize("seed", range(25))
def test_loss_reordering_and_switching_at_random(seed):
    """Seeded: 5 % lost, 10 % late, 5 % twice, key frames and wishes at random. Nothing repeats or runs backwards."""
    rng = random.Random(seed)
    stage = Stage()
    held = []
    for _ in range(300):
        if rng.random() < 0.05:
            stage.leg.target_layer = rng.randrange(3)
        for layer, source in enumerate(stage.sources):
            burst = []
            for packet in source.frame(stage.now, key=rng.random() < 0.1, packets=3):
                fate = rng.random()
                if fate < 0.05:
                    continue
                if fate < 0.15:
                    held.append((layer, packet))
                    continue
                burst.append(packet)
                if fate > 0.95:
                    burst.append(packet)
            stage.forwarder.receive(layer, burst, stage.now)
        while held and rng.random() < 0.6:
            layer, packet = held.pop(0)
            stage.forwarder.receive(layer, [packet], stage.now)
        stage.report()
        stage.now += FRAME
    assert len(stage.sink.rtp) > 300
    Verifier(stage.sink.rtp).in_order_of_arrival_or_late()
    assert stage.leg.packets == len(stage.sink.rtp)


@pytest.mark.parametrize("seed", range(10))
def test_every_answer_to_a_nack_is_what_was_sent(seed):
    """On one layer: whatever is asked for, known or not, comes as it was or not at all."""
    rng = random.Random(seed)
    stage = Stage()
    stage.frames(30, key=(0,), layers=(0,))
    sent = {p.sequence: p for p in stage.sink.take()}
    for number in rng.sample(range(65536), 50) + rng.sample(sorted(sent), 20):
        stage.forwarder.on_nack(stage.leg, (number,), stage.now + 1.0)
    for packet in stage.sink.rtp:
        original = int.from_bytes(packet.payload[:2], "big")
        assert bytes(packet.payload[2:]) == bytes(sent[original].payload)
        assert (packet.timestamp, packet.marker) == (sent[original].timestamp, sent[original].marker)
    assert len(stage.sink.rtp) >= 20
