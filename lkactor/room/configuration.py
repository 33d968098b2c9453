"""How a room is to be made: from the API's request, a token's roomConfig, a preset of the configuration. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from livekit.protocol import room

from lkactor.auth import Claims
from lkactor.room.presets import parse_preset

_FIELDS = (
    "empty_timeout", "departure_timeout", "max_participants", "min_playout_delay", "max_playout_delay", "sync_streams",
    "metadata",
)  # fmt: skip


class UnknownPreset(Exception):
    """Of a name that the configuration does not have."""


def request_of(name: str, claims: Claims) -> room.CreateRoomRequest:
    """What a join asks for: all of the token's roomConfig, and its preset."""
    request = room.CreateRoomRequest(name=name, room_preset=claims.room_preset)
    if claims.room_config is not None:
        _fill(request, claims.room_config)
    return request


def with_preset(request: room.CreateRoomRequest, presets: Mapping[str, Any]) -> room.CreateRoomRequest:
    """The request with what its preset says where it says nothing itself. Raises UnknownPreset."""
    if not request.room_preset:
        return request
    preset = presets.get(request.room_preset)
    if preset is None:
        raise UnknownPreset(request.room_preset)
    filled = room.CreateRoomRequest()
    filled.CopyFrom(request)
    _fill(filled, parse_preset(preset))
    return filled


def merged(request: room.CreateRoomRequest, former: room.CreateRoomRequest) -> room.CreateRoomRequest:
    """`request`, and what it leaves open as it was before."""
    filled = room.CreateRoomRequest()
    filled.CopyFrom(request)
    _fill(filled, former)
    return filled


def _fill(request: room.CreateRoomRequest, config: room.RoomConfiguration | room.CreateRoomRequest) -> None:
    for name in _FIELDS:
        if not getattr(request, name):
            setattr(request, name, getattr(config, name))
    if not request.agents:
        request.agents.extend(config.agents)
    if not request.tags:
        request.tags.update(config.tags)
    if not request.HasField("egress") and config.HasField("egress"):
        request.egress.CopyFrom(config.egress)
