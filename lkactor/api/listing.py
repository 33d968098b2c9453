"""ListRooms' answer, put together from rooms that were written before. Pure.

Rooms change rarely and are listed often: each is written once for every change, in either encoding, when a list wants
it. A list of a thousand rooms is a thousand pieces of text in a row.
"""

from __future__ import annotations

from collections.abc import Iterable

from livekit.protocol import models, room

from lkactor.api.protojson import to_json

_TAG = room.ListRoomsResponse.DESCRIPTOR.fields_by_name["rooms"].number << 3 | 2


class ListedRoom:
    """A room as a list shows it. `info` is not changed any more."""

    __slots__ = ("_json", "_protobuf", "info")

    def __init__(self, info: models.Room) -> None:
        self.info = info
        self._protobuf = b""
        self._json = ""

    def protobuf(self) -> bytes:
        """As an element of the list: tag, length, the room itself."""
        if not self._protobuf:
            body = self.info.SerializeToString()
            self._protobuf = bytes((_TAG,)) + _varint(len(body)) + body
        return self._protobuf

    def json(self) -> str:
        if not self._json:
            self._json = to_json(self.info)
        return self._json


class RoomList:
    """room.ListRoomsResponse of these rooms."""

    def __init__(self, rooms: Iterable[ListedRoom]) -> None:
        self._rooms = rooms

    def encode(self, *, as_json: bool) -> bytes:
        if as_json:
            return ('{"rooms":[' + ",".join([room.json() for room in self._rooms]) + "]}").encode()
        return b"".join([room.protobuf() for room in self._rooms])


def _varint(value: int) -> bytes:
    """Base 128, the lowest seven bits first (protobuf's encoding)."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
