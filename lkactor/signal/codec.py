"""Signal messages on the wire: protobuf in binary frames, protojson (camelCase) in text frames.

The reply follows the kind of the client's latest frame; before the client has spoken it is binary.
Source: livekit-surface section 1.7.
"""

from __future__ import annotations

import json
from typing import TypeVar

from google.protobuf.json_format import MessageToJson, ParseDict, ParseError
from google.protobuf.message import DecodeError, Message
from livekit.protocol import rtc

from lkactor.errors import ProtocolViolation

MAX_JSON_DEPTH = 32
M = TypeVar("M", bound=Message)


def decode_request(frame: bytes | str) -> rtc.SignalRequest:
    """One client frame. Raises ProtocolViolation("signal.malformed")."""
    return decode(frame, rtc.SignalRequest(), "signal.malformed")


def decode(frame: bytes | str, request: M, reason: str) -> M:
    """Fill `request`. Unknown fields are dropped. Raises ProtocolViolation(reason)."""
    try:
        if isinstance(frame, bytes):
            request.ParseFromString(frame)
        else:
            value = json.loads(frame)
            if not isinstance(value, dict):  # ParseDict would iterate a list or a string
                raise ProtocolViolation(reason, type(value).__name__)
            ParseDict(value, request, ignore_unknown_fields=True, max_recursion_depth=MAX_JSON_DEPTH)
    except (DecodeError, ParseError, ValueError, RecursionError, TypeError, AttributeError) as error:
        raise ProtocolViolation(reason, type(error).__name__) from None
    return request


def encode_response(response: Message, *, text: bool) -> bytes | str:
    """One server frame."""
    if text:
        return MessageToJson(response, indent=None)
    return response.SerializeToString()
