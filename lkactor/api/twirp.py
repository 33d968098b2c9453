"""Twirp: protobuf or JSON over POST, errors always JSON (livekit-surface 3.1). Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError, Message

from lkactor.api.listing import RoomList
from lkactor.api.protojson import to_json

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
        return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def relayed(code: str, text: str) -> TwirpError:
    """An error that comes from behind the API: the reference says so, in these words."""
    return TwirpError(code, f"twirp error unknown: {text}")


def invalid_argument(argument: str, text: str) -> TwirpError:
    """Twirp's own form of it, with the argument in the metadata."""
    return TwirpError("invalid_argument", f"{argument} {text}", {"argument": argument})


@dataclass(frozen=True, slots=True)
class Method:
    """What a method takes, and the grant it needs where the service has one rule for it."""

    request: type[Message]
    grant: str = ""


M = TypeVar("M", bound=Message)


def is_json(content_type: str, route: str) -> bool:
    """Raises TwirpError("bad_route") for anything but the two encodings. `route`: method and path, for the error."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json":
        return True
    if kind == "application/protobuf":
        return False
    shown = {"twirp_invalid_route": route}
    raise TwirpError("bad_route", f'unexpected Content-Type: "{content_type[:100]}"', shown)


def decode(body: bytes, cls: type[M], *, as_json: bool) -> M:
    """JSON takes both spellings of a field and ignores unknown ones, and what is behind the first value.

    Raises TwirpError("malformed").
    """
    message = cls()
    try:
        if as_json:
            tree = _object(_JSON.raw_decode(body.decode().lstrip(" \t\r\n"))[0])
            _check_bytes(tree, message)
            ParseDict(tree, message, ignore_unknown_fields=True, max_recursion_depth=32)
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


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """No name twice: which of the two would be meant?"""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _no_constant(name: str) -> object:
    """NaN and Infinity are no JSON."""
    raise ValueError(name)


_JSON = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]*={0,2}")


def _check_bytes(tree: Mapping[str, object], message: Message) -> None:
    """ParseDict passes over what is no base64, and so changes what was said. Raises ValueError."""
    for field in message.DESCRIPTOR.fields:
        if field.type != field.TYPE_BYTES:
            continue
        for value in (tree.get(field.name), tree.get(field.json_name)):
            if isinstance(value, str) and not _BASE64.fullmatch(value):
                raise ValueError("no base64")


def encode(message: Message | RoomList, *, as_json: bool) -> bytes:
    """JSON has the proto's own field names, and unset fields are written out, unset messages as null."""
    if isinstance(message, RoomList):
        return message.encode(as_json=as_json)
    if not as_json:
        return message.SerializeToString()
    return to_json(message).encode()
