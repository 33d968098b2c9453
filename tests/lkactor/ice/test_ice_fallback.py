"""UDP, then TCP, then TURN over TLS: each row of `lkactor.ice.fallback`, and who is remembered how long."""

import pytest

from lkactor.ice import Fallback, PathKind, Preference, PreferenceMemory, Ways
from lkactor.ice.fallback import MAX_REMEMBERED, MEMORY, next_preference, tcp_check_timeout

ANY, TCP, TLS = Preference.ANY, Preference.TCP, Preference.TLS
NONE, UDP, TCP_PATH, RELAY = PathKind.NONE, PathKind.UDP, PathKind.TCP, PathKind.RELAY
BOTH, TCP_ONLY, TLS_ONLY, NEITHER = Ways(True, True), Ways(True, False), Ways(False, True), Ways(False, False)


@pytest.mark.parametrize(
    ("current", "path", "ways", "chosen"),
    [
        (ANY, UDP, BOTH, TCP),
        (ANY, UDP, TCP_ONLY, TCP),
        (ANY, UDP, TLS_ONLY, TLS),
        (ANY, UDP, NEITHER, ANY),
        (ANY, TCP_PATH, BOTH, TLS),
        (ANY, TCP_PATH, TCP_ONLY, ANY),
        (TCP, TCP_PATH, BOTH, TLS),
        (TCP, TCP_PATH, TCP_ONLY, TCP),
        (TCP, UDP, BOTH, TLS),
        (TCP, UDP, TCP_ONLY, ANY),
        (TLS, UDP, BOTH, ANY),
        (TLS, TCP_PATH, BOTH, ANY),
        (ANY, RELAY, BOTH, ANY),
        (TCP, RELAY, BOTH, TCP),
        (TLS, RELAY, BOTH, TLS),
        (ANY, NONE, BOTH, ANY),
        (TCP, NONE, BOTH, ANY),
        (TLS, NONE, BOTH, ANY),
    ],
)
def test_what_comes_next(current: Preference, path: PathKind, ways: Ways, chosen: Preference) -> None:
    assert next_preference(current, path, ways) is chosen


def test_short_connection_moves_at_once() -> None:
    fallback = Fallback()
    assert fallback.failed(UDP, BOTH, short=True, now=0.0)
    assert (fallback.preference, fallback.moved) == (TCP, True)


def test_both_connections_fail_of_the_same_cause() -> None:
    """The subscriber's failure right after the publisher's is not one of TCP."""
    fallback = Fallback()
    fallback.failed(UDP, BOTH, short=True, now=0.0)
    assert not fallback.failed(UDP, BOTH, short=True, now=0.1)
    assert fallback.preference is TCP
    fallback.resumed()
    assert fallback.failed(TCP_PATH, BOTH, short=True, now=20.0)
    assert fallback.preference is TLS


@pytest.mark.parametrize(("gap", "moves"), [(59.0, True), (61.0, False)])
def test_long_connection_moves_with_the_second_failure_within_a_minute(gap: float, moves: bool) -> None:
    fallback = Fallback()
    assert not fallback.failed(UDP, BOTH, short=False, now=100.0)
    assert fallback.failed(UDP, BOTH, short=False, now=100.0 + gap) is moves


def test_resume_and_a_dead_network_begin_the_count_anew() -> None:
    for forget in (Fallback.resumed, Fallback.interrupted):
        fallback = Fallback()
        fallback.failed(UDP, BOTH, short=False, now=0.0)
        forget(fallback)
        assert not fallback.failed(UDP, BOTH, short=False, now=1.0)


def test_nothing_to_move_to_is_no_move() -> None:
    fallback = Fallback()
    assert not fallback.failed(UDP, NEITHER, short=True, now=0.0)
    assert not fallback.moved


@pytest.mark.parametrize(
    ("rtt", "timeout"), [(None, 12.0), (0, 5.0), (625, 5.0), (1000, None), (999, 7.992), (2000, None)]
)
def test_time_for_tcp(rtt: int | None, timeout: float | None) -> None:
    assert tcp_check_timeout(rtt) == timeout


def test_memory_is_by_room_and_identity_and_ends() -> None:
    memory = PreferenceMemory()
    memory.remember("a", "ann", TCP, 10.0)
    assert memory.recall("a", "ann", 10.0 + MEMORY - 0.1) is TCP
    assert memory.recall("b", "ann", 11.0) is memory.recall("a", "ben", 11.0) is ANY
    assert memory.recall("a", "ann", 10.0 + MEMORY) is ANY


def test_memory_forgets_what_is_over_and_what_is_any() -> None:
    memory = PreferenceMemory()
    memory.remember("a", "ann", TLS, 0.0)
    memory.remember("a", "ben", TCP, MEMORY + 1)
    assert len(memory) == 1
    memory.remember("a", "ben", ANY, MEMORY + 2)
    assert len(memory) == 0


def test_memory_set_again_lasts_from_then() -> None:
    memory = PreferenceMemory()
    memory.remember("a", "ann", TCP, 0.0)
    memory.remember("a", "ann", TLS, 200.0)
    assert memory.recall("a", "ann", MEMORY + 100) is TLS


def test_memory_is_bounded() -> None:
    memory = PreferenceMemory()
    for number in range(MAX_REMEMBERED + 5):
        memory.remember("a", str(number), TCP, float(number) / 1e6)
    assert len(memory) == MAX_REMEMBERED
    assert memory.recall("a", "4", 1.0) is ANY
    assert memory.recall("a", "5", 1.0) is TCP
