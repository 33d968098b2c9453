"""Wrapping counters: RFC 1982, RFC 3550 A.1."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lkactor.wire.sequence import Unwrapper, seq_diff, seq_newer


@pytest.mark.parametrize(
    ("a", "b", "newer"),
    [(1, 0, True), (0, 1, False), (0, 65535, True), (65535, 0, False), (5, 5, False), (32767, 0, True)],
)
def test_newer(a: int, b: int, newer: bool) -> None:
    assert seq_newer(a, b) is newer


@given(st.integers(0, 65535), st.integers(0, 65535))
def test_order_is_strict(a: int, b: int) -> None:
    assert seq_newer(a, b) + seq_newer(b, a) == (a != b)
    assert (b + seq_diff(a, b)) & 0xFFFF == a


def test_unwraps_across_the_wrap_both_ways() -> None:
    unwrapper = Unwrapper(16)
    assert [unwrapper.unwrap(value) for value in (65534, 1, 65535, 0, 2)] == [65534, 65537, 65535, 65536, 65538]
    assert unwrapper.newest == 65538


def test_values_before_the_first_are_negative() -> None:
    unwrapper = Unwrapper(16)
    assert [unwrapper.unwrap(value) for value in (1, 65535, 2)] == [1, -1, 2]


def test_peek_remembers_nothing_and_reset_forgets() -> None:
    unwrapper = Unwrapper(8)
    assert unwrapper.peek(9) == 9
    unwrapper.unwrap(250)
    assert unwrapper.peek(3) == 259
    assert unwrapper.newest == 250
    unwrapper.reset()
    assert unwrapper.unwrap(3) == 3


@given(st.sampled_from([5, 8, 15, 16, 32]), st.integers(0), st.lists(st.integers(1, 15), max_size=300))
def test_small_steps_are_followed_for_ever(bits: int, start: int, steps: list[int]) -> None:
    unwrapper, mask = Unwrapper(bits), (1 << bits) - 1
    true = start & mask
    assert unwrapper.unwrap(true) == true
    for step in steps:
        true += step
        assert unwrapper.unwrap(true & mask) == true
