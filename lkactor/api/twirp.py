"""Twirp: protobuf or JSON over POST, errors always JSON (livekit-surface 3.1). Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.json_format import MessageToJson, ParseDict, ParseError
from google.protobuf.message import DecodeError, Message

STATUS = {
    "canceled": 408,
    "unknown": 500,
    "internal": 500,
    "data_loss": 500,
    "invalid_argument": 400,
    "malformed": 400,
    "out_of_range": 400,
    "deadline_exceeded": 408,
    "not_found": 404,
    "bad_route": 404,
    "permission_denied": 403,
    "failed_precondition": 412,
    "aborted": 409,
    "already_exists": 409,
    "unimplemented": 501,
    "unavailable": 503,
    "unauthenticated": 401,
    "resource_exhausted": 429,
}


class TwirpError(Exception):
    """A refused call: `code` is a key of STATUS."""

    def __init__(self, code: str, message: str, meta: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.meta = meta

    @property
    def status(self) -> int:
        return STATUS[self.code]

    def body(self) -> bytes:
        body: dict[str, object] = {"code": self.code, "msg": self.message}
        if self.meta:
            body["meta"] = dict(self.meta)
        return json.dumps(body).encode()


@dataclass(frozen=True, slots=True)
class Method:
    """What a method takes, and the grant it needs where the service has one rule for it."""

    request: type[Message]
    grant: str = ""


M = TypeVar("M", bound=Message)


def is_json(content_type: str) -> bool:
    """Raises TwirpError("bad_route") for anything but the two encodings."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json":
        return True
    if kind == "application/protobuf":
        return False
    raise TwirpError("bad_route", f'unexpected Content-Type: "{kind[:100]}"')


def decode(body: bytes, cls: type[M], *, as_json: bool) -> M:
    """JSON takes both spellings of a field and ignores unknown ones. Raises TwirpError("malformed")."""
    message = cls()
    try:
        if as_json:
            ParseDict(_object(json.loads(body or b"{}")), message, ignore_unknown_fields=True, max_recursion_depth=32)
        else:
            message.ParseFromString(body)
    except (DecodeError, ParseError, ValueError, RecursionError, TypeError, AttributeError):
        kind = "the json request could not be decoded" if as_json else "the protobuf request could not be decoded"
        raise TwirpError("malformed", kind) from None
    return message


def _object(value: object) -> dict[str, object]:
    """ParseDict takes anything that can be iterated: a string would be an object of unknown fields."""
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return value


def encode(message: Message, *, as_json: bool) -> bytes:
    """JSON has the proto's own field names, and unset fields are written out."""
    if not as_json:
        return message.SerializeToString()
    text = MessageToJson(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, indent=None
    )
    return text.encode()
