"""`lkactor room create|list|delete|update|send-data`."""

from __future__ import annotations

import argparse
import secrets
from typing import Any

from livekit.protocol import models
from livekit.protocol import room as proto

from lkactor.cli.common import (
    USAGE,
    CliError,
    add_command,
    as_dict,
    call_api,
    print_json,
    server_of,
    server_options,
    table,
    whole,
)

SERVICE = "RoomService"


def add_parser(commands: Any) -> None:
    verbs = commands.add_parser("room", help="rooms: create, list, delete, update, send-data").add_subparsers(
        dest="verb", metavar="VERB", required=True
    )
    _add_create(verbs, "create")
    listing = add_command(verbs, "list", _list, "the rooms there are", example="lkactor room list --dev --json")
    listing.add_argument("names", nargs="*", metavar="NAME", help="only these")
    server_options(listing)
    delete = add_command(
        verbs, "delete", _delete, "end a room; everyone in it is told to leave", example="lkactor room delete demo"
    )
    delete.add_argument("name", metavar="NAME")
    server_options(delete)
    update = add_command(
        verbs, "update", _update, "change a room's metadata", example="lkactor room update demo --metadata '{}'"
    )
    update.add_argument("name", metavar="NAME")
    update.add_argument("--metadata", required=True, metavar="TEXT")
    server_options(update)
    send = add_command(
        verbs,
        "send-data",
        _send_data,
        "a data message to who is in a room; `lkactor join` prints what comes",
        example="lkactor room send-data demo 'dinner is ready' --topic chat",
    )
    send.add_argument("name", metavar="ROOM")
    send.add_argument("text", metavar="TEXT", help="sent as UTF-8")
    send.add_argument("--topic", default="", metavar="NAME")
    send.add_argument("--identity", action="append", default=[], help="to this one only; repeatable")
    send.add_argument("--lossy", action="store_true", help="without retransmission")
    server_options(send)
    _add_create(commands, "create-room")


def _add_create(commands: Any, name: str) -> None:
    create = add_command(
        commands,
        name,
        _create,
        "make a room, or get the one there is",
        example=f"lkactor {'room create' if name == 'create' else name} demo --max-participants 10 --dev",
    )
    create.add_argument("positional", nargs="?", metavar="NAME")
    create.add_argument("--name", help="the same as NAME")
    create.add_argument("--empty-timeout", type=whole, default=0, metavar="S", help="life without anyone, seconds")
    create.add_argument("--departure-timeout", type=whole, default=0, metavar="S", help="after the last one left")
    create.add_argument("--max-participants", type=whole, default=0, metavar="N", help="0: no limit")
    for bound in ("min", "max"):
        flag, help = f"--{bound}-playout-delay", "how long clients hold video back, milliseconds"
        create.add_argument(flag, type=whole, default=0, metavar="MS", help=help)
    create.add_argument("--sync-streams", action="store_true", help="audio and video of a participant play in step")
    create.add_argument("--room-preset", default="", metavar="NAME")
    create.add_argument("--metadata", default="", metavar="TEXT")
    server_options(create)


def _create(arguments: argparse.Namespace) -> int:
    name = arguments.positional or arguments.name
    if not name:
        raise CliError("which room? lkactor room create NAME", USAGE)
    request = proto.CreateRoomRequest(
        name=name,
        empty_timeout=arguments.empty_timeout,
        departure_timeout=arguments.departure_timeout,
        max_participants=arguments.max_participants,
        min_playout_delay=arguments.min_playout_delay,
        max_playout_delay=arguments.max_playout_delay,
        sync_streams=arguments.sync_streams,
        room_preset=arguments.room_preset,
        metadata=arguments.metadata,
    )
    room: models.Room = call_api(
        server_of(arguments), lambda api: api.call(SERVICE, "CreateRoom", request, models.Room, room_create=True)
    )
    _print(room, arguments.json)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    request = proto.ListRoomsRequest(names=arguments.names)
    found: proto.ListRoomsResponse = call_api(
        server_of(arguments),
        lambda api: api.call(SERVICE, "ListRooms", request, proto.ListRoomsResponse, room_list=True),
    )
    rooms = sorted(found.rooms, key=lambda room: str(room.name))
    if arguments.json:
        print_json([as_dict(room) for room in rooms])
        return 0
    rows = [(room.sid, room.name, room.num_participants, room.num_publishers, room.metadata) for room in rooms]
    print(table(("SID", "NAME", "PARTICIPANTS", "PUBLISHERS", "METADATA"), rows))
    return 0


def _delete(arguments: argparse.Namespace) -> int:
    request = proto.DeleteRoomRequest(room=arguments.name)
    call_api(
        server_of(arguments),
        lambda api: api.call(SERVICE, "DeleteRoom", request, proto.DeleteRoomResponse, room_create=True),
    )
    if arguments.json:
        print_json({"deleted": arguments.name})
    else:
        print(f"deleted room {arguments.name}")
    return 0


def _update(arguments: argparse.Namespace) -> int:
    request = proto.UpdateRoomMetadataRequest(room=arguments.name, metadata=arguments.metadata)
    grants = {"room_admin": True, "room": arguments.name}
    room: models.Room = call_api(
        server_of(arguments), lambda api: api.call(SERVICE, "UpdateRoomMetadata", request, models.Room, **grants)
    )
    _print(room, arguments.json)
    return 0


def _send_data(arguments: argparse.Namespace) -> int:
    data = arguments.text.encode(errors="surrogateescape")
    kind = models.DataPacket.Kind.LOSSY if arguments.lossy else models.DataPacket.Kind.RELIABLE
    request = proto.SendDataRequest(
        room=arguments.name,
        data=data,
        kind=kind,
        topic=arguments.topic,
        destination_identities=arguments.identity,
        nonce=secrets.token_bytes(16),
    )
    grants = {"room_admin": True, "room": arguments.name}
    call_api(server_of(arguments), lambda api: api.call(SERVICE, "SendData", request, proto.SendDataResponse, **grants))
    if arguments.json:
        print_json({"room": arguments.name, "sent": len(data)})
    else:
        print(f"sent {len(data)} octets to {', '.join(arguments.identity) or arguments.name}")
    return 0


def _print(room: models.Room, as_json: bool) -> None:
    if as_json:
        print_json(as_dict(room))
        return
    rows = [(room.sid, room.name, room.num_participants, room.metadata)]
    print(table(("SID", "NAME", "PARTICIPANTS", "METADATA"), rows))
