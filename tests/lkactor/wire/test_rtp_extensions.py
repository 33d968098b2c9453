"""Header extension payloads: RFC 6464, RFC 8852, abs-send-time, the transport-wide sequence number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lkactor.wire import extensions


@pytest.mark.parametrize(
    ("value", "expected"),
    [(b"\x00", (0, False)), (b"\x7f", (127, False)), (b"\x80", (0, True)), (b"\x9e", (30, True)), (b"", None)],
)
def test_audio_level(value: bytes, expected: tuple[int, bool] | None) -> None:
    assert extensions.audio_level(value) == expected


def test_audio_level_of_the_two_byte_form_may_have_more() -> None:
    assert extensions.audio_level(b"\x85\x00") == (5, True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(b"0", "0"), (b"hi", "hi"), (b"q\0\0", "q"), (b"", None), (b"\xff", None), (b"a" * 33, None)],
)
def test_text(value: bytes, expected: str | None) -> None:
    assert extensions.text(value) == expected


def test_transport_cc() -> None:
    assert extensions.transport_cc(b"\x12\x34") == 0x1234
    assert extensions.transport_cc(b"\x12") is None


def test_abs_send_time_is_six_eighteen_and_wraps() -> None:
    assert extensions.abs_send_time(1.5) == 3 << 17
    assert extensions.abs_send_time(64.0) == 0
    assert extensions.abs_send_time(65.0) == extensions.abs_send_time(1.0)


@given(st.binary(max_size=40))
def test_random_bytes_never_raise(value: bytes) -> None:
    extensions.audio_level(value)
    extensions.text(value)
    extensions.transport_cc(value)
