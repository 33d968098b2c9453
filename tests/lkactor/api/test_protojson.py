"""The API's JSON against protobuf's own `json_format`, for every message that an API method returns."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import pytest
from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st
from livekit.protocol import agent, agent_dispatch, egress, ingress, models, room, sip
from livekit.protocol import rtc as rtc_api

from lkactor.api.protojson import to_json

ANSWERS = sorted(
    {
        method.output_type.full_name: method.output_type
        for module in (room, agent_dispatch, egress, ingress, sip)
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }.items()
)
TYPES: list[type[Message]] = [GetMessageClass(descriptor) for _, descriptor in ANSWERS]
TYPES += [rtc_api.SignalResponse, models.DataPacket, agent.Job, room.CreateRoomRequest]
INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def expected(message: Message) -> str:
    tree = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    say_null(message, tree)
    return json.dumps(tree, separators=(",", ":"), ensure_ascii=False)


def say_null(message: Message, tree: dict[str, Any]) -> None:
    """Unset messages, which `json_format` leaves out."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        if field.message_type.file.package == "google.protobuf" and field.name in tree:
            continue
        said = tree.get(field.name)
        if isinstance(said, list):
            for item, inner in zip(getattr(message, field.name), said, strict=True):
                say_null(item, inner)
        elif isinstance(said, dict):
            say_null(getattr(message, field.name), said)
        elif said is None and field.containing_oneof is None:
            tree[field.name] = None


def scalars(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    kind = field.cpp_type
    if kind in INTEGERS:
        return st.integers(*INTEGERS[kind])
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return st.integers(-3, 40)  # Also numbers that nobody has named.
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if kind == FieldDescriptor.CPPTYPE_DOUBLE:
        return st.floats()
    if kind == FieldDescriptor.CPPTYPE_FLOAT:
        return st.floats(width=32)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=9)
    return st.text(max_size=9)


def fill(message: Message, data: st.DataObject, depth: int) -> None:
    """Some of the fields, with values that are possible."""
    fields: list[FieldDescriptor] = list(message.DESCRIPTOR.fields)
    chosen: set[int] = data.draw(st.sets(st.integers(0, len(fields) - 1), max_size=6)) if fields else set()
    for index in sorted(chosen):
        fill_field(message, fields[index], data, depth)


def fill_field(message: Message, field: FieldDescriptor, data: st.DataObject, depth: int) -> None:
    value = getattr(message, field.name)
    kind = field.message_type
    if kind is None and field.is_repeated:
        value.extend(data.draw(st.lists(scalars(field), max_size=3)))
    elif kind is None:
        setattr(message, field.name, data.draw(scalars(field)))
    elif kind.GetOptions().map_entry:
        keys = data.draw(st.lists(scalars(kind.fields_by_name["key"]), max_size=3))
        for key in keys:
            fill_entry(value, key, kind.fields_by_name["value"], data, depth)
    elif kind.file.package == "google.protobuf" and kind.name not in ("Timestamp", "Duration", "Empty"):
        pass  # Not every random one of these can be said.
    elif depth == 0:
        pass
    elif field.is_repeated:
        for _ in range(data.draw(st.integers(0, 2))):
            inner = value.add()
            fill_message(inner, kind, data, depth)
    else:
        value.SetInParent()
        fill_message(value, kind, data, depth)


def fill_message(inner: Message, kind: Descriptor, data: st.DataObject, depth: int) -> None:
    if kind.file.package != "google.protobuf":
        fill(inner, data, depth - 1)
    elif kind.name in ("Timestamp", "Duration"):
        inner.seconds = data.draw(st.integers(0, 1_000_000))  # type: ignore[attr-defined]


def fill_entry(value: Any, key: Any, field: FieldDescriptor, data: st.DataObject, depth: int) -> None:
    if field.message_type is None:
        value[key] = data.draw(scalars(field))
    else:
        fill_message(value[key], field.message_type, data, max(1, depth))


@pytest.mark.parametrize("cls", TYPES, ids=lambda cls: cls.DESCRIPTOR.name)
def test_an_empty_one(cls: type[Message]) -> None:
    assert to_json(cls()) == expected(cls())


@pytest.mark.parametrize("cls", TYPES, ids=lambda cls: cls.DESCRIPTOR.name)
@settings(max_examples=40)
@given(data=st.data())
def test_random_ones(cls: type[Message], data: st.DataObject) -> None:
    message = cls()
    fill(message, data, 3)
    assert to_json(message) == expected(message)


@given(data=st.data())
def test_what_is_asked_for_most(data: st.DataObject) -> None:
    message = room.ListParticipantsResponse()
    for _ in range(3):
        fill(message.participants.add(), data, 4)
    assert to_json(message) == expected(message)


def test_numbers() -> None:
    for value in (0.0, -0.0, 1.0, 0.1, 1e30, 3.4028235e38, 1e-45, 16777217.0, 1.5e-7, math.inf, -math.inf, math.nan):
        narrow = struct.unpack("f", struct.pack("f", value))[0]
        message = models.SpeakerInfo(level=narrow)
        assert to_json(message) == expected(message)


def test_google_s_own_types() -> None:
    assert to_json(timestamp_pb2.Timestamp(seconds=1)) == '"1970-01-01T00:00:01Z"'
    tree = struct_pb2.Struct()
    tree.update({"a": [1, None, {"b": True}]})
    assert json.loads(to_json(tree)) == {"a": [1, None, {"b": True}]}


def test_many_combinations_of_fields_do_not_fill_the_memory() -> None:
    for number in range(2**10):
        message = models.Room()
        for index, name in enumerate(("sid", "name", "metadata", "turn_password")):
            if number >> index & 1:
                setattr(message, name, "x")
        for index, name in enumerate(("empty_timeout", "creation_time", "num_participants", "num_publishers")):
            if number >> index + 4 & 1:
                setattr(message, name, 1)
        message.active_recording = bool(number >> 8 & 1)
        message.departure_timeout = number >> 9
        assert to_json(message) == expected(message)
