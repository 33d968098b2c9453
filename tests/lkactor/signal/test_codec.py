"""Frames of the signalling connection: binary and JSON, good and bad (livekit-surface 1.7)."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from livekit.protocol import rtc

from lkactor.errors import ProtocolViolation
from lkactor.signal.codec import decode_request, encode_response

REQUEST = rtc.SignalRequest(ping_req=rtc.Ping(timestamp=7, rtt=3))


def test_both_kinds():
    assert decode_request(REQUEST.SerializeToString()) == REQUEST
    assert decode_request('{"pingReq": {"timestamp": "7", "rtt": 3}, "newField": {}}') == REQUEST
    assert decode_request('{"ping_req": {"timestamp": 7, "rtt": "3"}}') == REQUEST
    assert decode_request(b"") == rtc.SignalRequest()


@pytest.mark.parametrize(
    "frame",
    [
        b"\xff",
        b"\x0a\x05a",
        "",
        "{",
        "[]",
        "[[]]",
        "5",
        "null",
        '"pingReq"',
        '{"pingReq": 5}',
        "[" * 100000,
    ],
)
def test_malformed_frames(frame):
    with pytest.raises(ProtocolViolation, match=r"signal\.malformed"):
        decode_request(frame)


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=80) | st.text(max_size=80))
def test_any_frame(frame):
    try:
        decode_request(frame)
    except ProtocolViolation:
        pass


def test_responses_in_both_kinds():
    response = rtc.SignalResponse(refresh_token="t")
    assert rtc.SignalResponse.FromString(encode_response(response, text=False)) == response
    assert json.loads(encode_response(response, text=True)) == {"refreshToken": "t"}
