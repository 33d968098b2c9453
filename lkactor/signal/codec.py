"""Signal messages on the wire: protobuf in binary frames, protojson (camelCase) in text frames.

The reply follows the kind of the client's latest frame; before the client has spoken it is binary.
Source: livekit-surface section 1.7.
"""

from __future__ import annotations

import json

from google.protobuf.json_format import MessageToJson, ParseDict, ParseError
from google.protobuf.message import DecodeError
from livekit.protocol import rtc

from lkactor.errors import ProtocolViolation

MAX_JSON_DEPTH = 32


def decode_request(frame: bytes | str) -> rtc.SignalRequest:
    """One client frame. Unknown fields are dropped. Raises ProtocolViolation("signal.malformed")."""
    request = rtc.SignalRequest()
    try:
        if isinstance(frame, bytes):
            request.ParseFromString(frame)
        else:
            value = json.loads(frame)
            if not isinstance(value, dict):  # ParseDict would iterate a list or a string
                raise ProtocolViolation("signal.malformed", type(value).__name__)
            ParseDict(value, request, ignore_unknown_fields=True, max_recursion_depth=MAX_JSON_DEPTH)
    except (DecodeError, ParseError, ValueError, RecursionError, TypeError, AttributeError) as error:
        raise ProtocolViolation("signal.malformed", type(error).__name__) from None
    return request


def encode_response(response: rtc.SignalResponse, *, text: bool) -> bytes | str:
    """One server frame."""
    if text:
        return MessageToJson(response, indent=None)
    return response.SerializeToString()
