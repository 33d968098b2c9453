"""Numbers of a leg: the table of vectors-and-chaos section 1 row 1, ids over switches (row 3)."""

import random

import pytest
from support.media import vp8_payload

from lkactor.sfu.munger import MAX_RANGES, RtpMunger, Vp8Munger, write_vp8
from lkactor.wire.codecs.vp8 import parse_descriptor


def started(number):
    munger = RtpMunger()
    munger.start(number, 0)
    return munger


def test_the_published_table():
    munger = started(65533)
    assert munger.sequence(65533) == 65533
    assert munger.sequence(65537) == 65537 & 0xFFFF
    munger.skip(65538)
    assert munger.sequence(65540) == 65539 & 0xFFFF
    munger.skip(65541)
    assert munger.sequence(65543) == 65541 & 0xFFFF
    assert munger.sequence(65542) == 65540 & 0xFFFF
    assert munger.sequence(65539) == 65538 & 0xFFFF


def test_before_the_start_has_no_place():
    munger = started(500)
    munger.sequence(500)
    assert munger.sequence(499) == -1


def test_left_out_behind_a_gap_leaves_the_hole():
    munger = started(10)
    munger.sequence(10)
    munger.skip(12)
    assert munger.sequence(13) == 13
    assert munger.sequence(11) == 11


def test_first_packet_keeps_its_numbers_even_wrapped():
    munger = RtpMunger()
    munger.start(65536 * 3 + 7, 0xFFFFFFF0)
    assert munger.sequence(65536 * 3 + 7) == 7
    assert munger.timestamp(0xFFFFFFF0) == 0xFFFFFFF0


def test_switch_goes_on_right_behind():
    munger = started(23338)
    munger.sequence(23338)
    munger.switch(70000, 1000, 4000)
    assert munger.sequence(70000) == 23339
    assert munger.timestamp(1090) == 4090
    assert munger.sequence(69999) == -1


def test_ranges_are_bounded_and_the_forgotten_is_dropped():
    munger = started(0)
    number = 0
    for _ in range(3 * MAX_RANGES):
        munger.sequence(number)
        munger.skip(number + 1)
        number += 2
    assert len(munger._starts) <= MAX_RANGES
    assert munger.sequence(3) == -1


@pytest.mark.parametrize("seed", range(20))
def test_any_order_maps_each_number_once(seed):
    """In order of arrival with reordering and padding: outgoing numbers are unique, in source order, without holes."""
    rng = random.Random(seed)
    munger = started(60000)
    sent, skipped = {}, set()
    held = []
    for number in range(60000, 60400):
        if number > 60000 and rng.random() < 0.1:
            held.append(number)
            continue
        if number == munger.newest + 1 and rng.random() < 0.2 and number > 60000:
            munger.skip(number)
            skipped.add(number)
        else:
            sent[number] = munger.sequence(number)
        if held and rng.random() < 0.3:
            late = held.pop(0)
            sent[late] = munger.sequence(late)
    for late in held:
        sent[late] = munger.sequence(late)
    out = [sent[number] for number in sorted(sent)]
    assert len(set(out)) == len(out) == 400 - len(skipped)
    assert out == [(60000 + index) & 0xFFFF for index in range(len(out))]


def rewritten(munger, payload):
    descriptor = parse_descriptor(payload)
    ids = munger.map(descriptor, True)
    copy = memoryview(bytearray(payload))
    write_vp8(copy, 0, descriptor, ids)
    out = parse_descriptor(copy)
    return out.picture_id, out.tl0picidx, out.keyidx


def test_ids_follow_on_at_a_switch_and_wrap():
    munger = Vp8Munger()
    assert rewritten(munger, vp8_payload(32767, 255, 31, key=True)) == (32767, 255, 31)
    source = vp8_payload(900, 40, 7, key=True)
    munger.switch(parse_descriptor(source))
    assert rewritten(munger, source) == (0, 0, 0)
    assert rewritten(munger, vp8_payload(901, 41, 7, key=False)) == (1, 1, 0)
    back = vp8_payload(5, 5, 5, key=True)
    munger.switch(parse_descriptor(back))
    assert rewritten(munger, back) == (2, 2, 1)


def test_late_packets_do_not_move_the_ids():
    munger = Vp8Munger()
    munger.map(parse_descriptor(vp8_payload(50, 5, 1, key=True)), True)
    munger.map(parse_descriptor(vp8_payload(20, 3, 1, key=False)), False)
    source = vp8_payload(900, 40, 7, key=True)
    munger.switch(parse_descriptor(source))
    assert rewritten(munger, source)[:2] == (51, 6)


def test_rewriting_touches_only_the_ids():
    payload = vp8_payload(300, 5, 1, 2, key=True)
    copy = memoryview(bytearray(payload))
    write_vp8(copy, 0, parse_descriptor(payload), (32000, 200, 30))
    assert copy[0] == payload[0] and copy[1] == payload[1] and copy[6:] == payload[6:]
    assert copy[5] >> 5 == payload[5] >> 5


@pytest.mark.parametrize("first", [100, 0x7FFE, 0])
def test_pictures_left_out_close_up_and_late_ones_keep_the_number_of_their_time(first):
    munger = Vp8Munger()

    def found(number):
        return parse_descriptor(vp8_payload((first + number) & 0x7FFF, 0, 0, key=False))

    munger.switch(found(0))
    assert munger.map(found(0), True)[0] == first
    munger.drop()  # 1
    assert munger.map(found(2), True)[0] == (first + 1) & 0x7FFF
    munger.drop()  # 3
    munger.drop()  # 4
    assert munger.map(found(5), True)[0] == (first + 2) & 0x7FFF
    assert munger.map(found(2), False, 2)[0] == (first + 1) & 0x7FFF
    assert munger.map(found(0), False, 3)[0] == first
    assert munger.map(found(6), True)[0] == (first + 3) & 0x7FFF


def test_a_switch_goes_on_behind_the_last_picture_that_went_out():
    munger = Vp8Munger()
    munger.map(parse_descriptor(vp8_payload(50, 1, 0, key=True)), True)
    munger.drop()
    munger.drop()
    other = parse_descriptor(vp8_payload(9000, 1, 0, key=True))
    munger.switch(other)
    assert munger.map(other, True)[0] == 51
