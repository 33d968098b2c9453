"""Loss, duplicates, restarts and reports of one inbound stream; NACK timing (vectors-and-chaos 1, rows 9 and 10)."""

import itertools

import pytest
from support.media import audio_packet

from lkactor.sfu.nack import MAX_TRACKED, NackGenerator
from lkactor.sfu.receiver import CYCLE, LayerReceiver
from lkactor.wire.rtcp import ReceiverReport as Rr
from lkactor.wire.rtcp import SenderReport, build_rtcp


def receiver(clock_rate=48000, history=200):
    return LayerReceiver(clock_rate, history)


def take(receiver, *sequences, now=1.0, ssrc=77):
    return [receiver.receive(audio_packet(number & 0xFFFF, number * 960, now, ssrc=ssrc)) for number in sequences]


def test_numbers_extend_over_the_wrap_both_ways():
    stream = receiver()
    assert take(stream, 65534, 65535, 65537, 65536, 65538) == [CYCLE + n for n in (65534, 65535, 65537, 65536, 65538)]
    assert stream.out_of_order == 1 and stream.packets == 5


def test_duplicates_are_dropped_and_counted():
    stream = receiver()
    assert take(stream, 5, 6, 6, 5)[2:] == [-1, -1]
    assert stream.duplicates == 2 and stream.packets == 2


def test_history_keeps_at_least_what_was_asked_and_forgets():
    stream = receiver(history=200)
    take(stream, *range(1000))
    assert stream.packet(CYCLE + 999).sequence == 999
    assert stream.packet(CYCLE + 800).sequence == 800
    assert stream.packet(CYCLE + 700) is None


def test_report_block_counts_loss_by_interval():
    stream = receiver()
    take(stream, *range(100))
    first = stream.report_block(1.0)
    assert (first.fraction_lost, first.packets_lost, first.highest_sequence) == (0, 0, 99)
    take(stream, *range(100, 200, 2))
    second = stream.report_block(2.0)
    assert second.packets_lost == 49 and second.fraction_lost == (49 << 8) // 99
    take(stream, *range(101, 199, 2))
    assert stream.report_block(3.0).packets_lost == 0


def test_report_block_before_media_and_of_wrapped_numbers():
    stream = receiver()
    assert stream.report_block(0.0) is None
    take(stream, *range(65530, 65545))
    assert stream.report_block(0.0).highest_sequence == 65544


def test_last_report_is_echoed():
    stream = receiver()
    take(stream, 1)
    stream.on_report(SenderReport(77, 0x1111_2222_3333_4444, 0, 0, 0), 10.0)
    block = stream.report_block(10.5)
    assert (block.lsr, block.dlsr) == (0x2222_3333, 32768)


def test_jitter_of_the_appendix():
    """RFC 3550 A.8: a constant transit is no jitter; one step of D adds D/16."""
    stream = receiver()
    for index in range(10):
        stream.receive(audio_packet(index, index * 960, index * 0.02))
    assert stream.report_block(1.0).jitter == 0
    stream.receive(audio_packet(10, 10 * 960, 10 * 0.02 + 0.01))
    assert stream.report_block(1.0).jitter == 480 // 16


def test_another_ssrc_starts_over():
    stream = receiver()
    take(stream, 100, 101, ssrc=1)
    take(stream, 40000, 40001, ssrc=2)
    block = stream.report_block(1.0)
    assert (block.ssrc, block.packets_lost, stream.nack.next_timeout()) == (2, 0, None)


def test_a_stream_that_restarts_lower_is_heard_again():
    stream = receiver()
    take(stream, *range(30000, 30010))
    assert take(stream, *range(10000, 10020))[-1] >= 0


def test_one_packet_from_far_ahead_is_no_restart():
    """RFC 3550 A.1: a second one must follow it; the numbers in between go on as if nothing had been."""
    stream = receiver()
    take(stream, *range(100, 110))
    assert take(stream, 20000) == [-1]
    assert take(stream, 110, 111) == [CYCLE + 110, CYCLE + 111]
    assert stream.restarts == 0 and stream.nack.next_timeout() is None
    assert take(stream, 20000, 20001)[1] >= 0
    assert stream.restarts == 1 and stream.nack.next_timeout() is None


def test_scattered_stragglers_are_no_restart():
    stream = receiver()
    take(stream, *range(30000, 30010))
    assert set(take(stream, *range(10000, 10100, 2))) == {-1}
    assert stream.restarts == 0


def test_reports_of_other_sources_and_older_ones_do_not_count():
    stream = receiver()
    take(stream, 1)
    assert stream.on_report(SenderReport(77, 5 << 32, 0, 0, 0), 1.0)
    assert not stream.on_report(SenderReport(78, 6 << 32, 0, 0, 0), 2.0)
    assert not stream.on_report(SenderReport(77, 5 << 32, 0, 0, 0), 2.0)
    assert stream.report_arrival == 1.0


def test_windows_count_loss_once_and_not_what_was_repaired():
    stream = receiver()
    take(stream, *range(0, 100, 2))
    assert stream.window() == (99, 49)
    take(stream, *range(1, 99, 2))
    assert stream.window() == (0, -49)
    take(stream, *range(100, 150))
    assert stream.window() == (51, 1)


def test_an_old_report_can_still_be_written():
    stream = receiver()
    take(stream, 1)
    stream.on_report(SenderReport(77, 1 << 32, 0, 0, 0), 0.0)
    assert build_rtcp([Rr(77, (stream.report_block(70000.0),))])


# -- NACK


def asked(nack, until, step=0.001):
    """(time in ms, numbers) of every request up to `until` seconds."""
    out = []
    for tick in range(int(until / step) + 1):
        due = nack.due(tick * step + 1e-9)
        if due:
            out.append((tick, due))
    return out


def test_five_tries_with_backoff():
    nack = NackGenerator()
    nack.lost(65534, 65537, 0.0)
    rounds = asked(nack, 5.0)
    assert [numbers for _, numbers in rounds] == [[65534, 65535, 65536, 65537]] * 5
    times = [at for at, _ in rounds]
    assert times[0] == 20
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps == pytest.approx([70, 70 * 1.25, 70 * 1.25**2, 70 * 1.25**3], abs=2)
    assert nack.next_timeout() is None


@pytest.mark.parametrize(("rtt", "expected"), [(0.001, [20] * 4), (0.9, [400] * 4)])
def test_interval_bounds(rtt, expected):
    nack = NackGenerator()
    nack.rtt = rtt
    nack.lost(1, 1, 0.0)
    times = [at for at, _ in asked(nack, 3.0)]
    assert [b - a for a, b in itertools.pairwise(times)] == pytest.approx(expected, abs=2)


def test_not_before_the_reordering_allowance_and_not_after_arrival():
    nack = NackGenerator()
    nack.lost(7, 8, 0.0)
    assert nack.due(0.019) == []
    nack.received(7)
    assert nack.due(0.020) == [8]
    nack.received(8)
    assert nack.next_timeout() is None and nack.due(10.0) == []


def test_at_most_a_hundred_the_newest():
    nack = NackGenerator()
    nack.lost(0, 149, 0.0)
    nack.lost(1000, 1009, 0.0)
    due = nack.due(1.0)
    assert len(due) == MAX_TRACKED and due[-10:] == list(range(1000, 1010)) and due[0] == 60


def test_through_the_receiver_over_the_wrap():
    stream = receiver()
    take(stream, 65533, 65537, now=0.0)
    assert [number & 0xFFFF for number in stream.nack.due(0.02)] == [65534, 65535, 0]
    take(stream, 65535, now=0.03)
    assert [number & 0xFFFF for number in stream.nack.due(0.2)] == [65534, 0]
