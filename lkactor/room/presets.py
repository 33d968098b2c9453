"""Room presets of the configuration: `room.room_configurations`. Pure."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import ParseDict, ParseError
from livekit.protocol import room


def parse_preset(fields: Any) -> room.RoomConfiguration:
    """From YAML, names in either spelling. Raises ValueError."""
    try:
        return ParseDict(fields, room.RoomConfiguration())
    except (ParseError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from None
