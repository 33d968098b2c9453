"""`lkactor participant list|get|remove|update|mute|move|forward`."""

from __future__ import annotations

import argparse
from typing import Any

from google.protobuf.json_format import ParseDict, ParseError
from livekit.protocol import models
from livekit.protocol import room as proto

from lkactor.cli.common import (
    NOT_FOUND,
    USAGE,
    CliError,
    add_command,
    as_dict,
    call_api,
    pair,
    print_json,
    server_of,
    server_options,
    shown,
    table,
)

SERVICE = "RoomService"


def add_parser(commands: Any) -> None:
    verbs = commands.add_parser(
        "participant", help="who is in a room: list, get, remove, update, mute, move, forward"
    ).add_subparsers(dest="verb", metavar="VERB", required=True)
    listing = add_command(verbs, "list", _list, "who is in a room", example="lkactor participant list demo --dev")
    get = add_command(
        verbs, "get", _get, "one participant with its tracks", example="lkactor participant get demo alice"
    )
    remove = add_command(
        verbs, "remove", _remove, "throw a participant out", example="lkactor participant remove demo alice"
    )
    update = add_command(
        verbs,
        "update",
        _update,
        "change a participant's name, metadata, attributes or permissions",
        example="""lkactor participant update demo alice --permissions '{"can_publish": false}'""",
    )
    mute = add_command(
        verbs,
        "mute",
        _mute,
        "mute a track (or --unmute, where the server allows that)",
        example="lkactor participant mute demo alice TR_AMwz5mQ4YkU8cx",
    )
    move = add_command(
        verbs,
        "move",
        _move,
        "into another room (LiveKit's open source server does not)",
        example="lkactor participant move demo alice stage",
    )
    forward = add_command(
        verbs,
        "forward",
        _forward,
        "let another room hear and see a participant, too (LiveKit's open source server does not)",
        example="lkactor participant forward demo alice overflow",
    )
    every = (listing, get, remove, update, mute, move, forward)
    for parser in every:
        parser.add_argument("room", metavar="ROOM")
        if parser is not listing:
            parser.add_argument("identity", metavar="IDENTITY")
    update.add_argument("--metadata", default="", metavar="TEXT")
    update.add_argument("--name", default="", metavar="TEXT")
    update.add_argument("--attribute", action="append", default=[], type=pair, metavar="K=V", help="empty V removes it")
    update.add_argument("--permissions", default="", metavar="JSON", help="the whole ParticipantPermission")
    mute.add_argument("track", metavar="TRACK", help="track SID, or all")
    mute.add_argument("--unmute", action="store_true")
    for parser in (move, forward):
        parser.add_argument("destination", metavar="DESTINATION", help="a room that is there")
    for parser in every:
        server_options(parser)


def _call(arguments: argparse.Namespace, method: str, request: Any, answer: Any, **more: str) -> Any:
    grants = {"room_admin": True, "room": arguments.room, **more}
    return call_api(server_of(arguments), lambda api: api.call(SERVICE, method, request, answer, **grants))


def _list(arguments: argparse.Namespace) -> int:
    request = proto.ListParticipantsRequest(room=arguments.room)
    found = _call(arguments, "ListParticipants", request, proto.ListParticipantsResponse)
    if arguments.json:
        print_json([as_dict(participant) for participant in found.participants])
        return 0
    rows = [
        (p.identity, models.ParticipantInfo.State.Name(p.state), len(p.tracks), p.sid, p.name)
        for p in sorted(found.participants, key=lambda p: str(p.identity))
    ]
    print(table(("IDENTITY", "STATE", "TRACKS", "SID", "NAME"), rows))
    return 0


def _get(arguments: argparse.Namespace) -> int:
    request = proto.RoomParticipantIdentity(room=arguments.room, identity=arguments.identity)
    _print(_call(arguments, "GetParticipant", request, models.ParticipantInfo), arguments.json)
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    request = proto.RoomParticipantIdentity(room=arguments.room, identity=arguments.identity)
    _call(arguments, "RemoveParticipant", request, proto.RemoveParticipantResponse)
    if arguments.json:
        print_json({"removed": arguments.identity, "room": arguments.room})
    else:
        print(f"removed {arguments.identity} from {arguments.room}")
    return 0


def _update(arguments: argparse.Namespace) -> int:
    request = proto.UpdateParticipantRequest(
        room=arguments.room,
        identity=arguments.identity,
        metadata=arguments.metadata,
        name=arguments.name,
        attributes=dict(arguments.attribute),
    )
    if arguments.permissions:
        request.permission.CopyFrom(_permissions(arguments.permissions))
    _print(_call(arguments, "UpdateParticipant", request, models.ParticipantInfo), arguments.json)
    return 0


def _permissions(text: str) -> models.ParticipantPermission:
    import json

    try:
        value = json.loads(text)
        if not isinstance(value, dict):
            raise ValueError("expected an object")
        return ParseDict(value, models.ParticipantPermission())
    except (ValueError, ParseError) as error:
        fields = ", ".join(models.ParticipantPermission.DESCRIPTOR.fields_by_name)
        raise CliError(f"--permissions: {error}; the fields are {fields}", USAGE) from None


def _mute(arguments: argparse.Namespace) -> int:
    tracks = [arguments.track]
    if arguments.track == "all":
        request = proto.RoomParticipantIdentity(room=arguments.room, identity=arguments.identity)
        info = _call(arguments, "GetParticipant", request, models.ParticipantInfo)
        tracks = [track.sid for track in info.tracks]
    answers: list[models.TrackInfo] = []
    for sid in tracks:
        mute = proto.MuteRoomTrackRequest(
            room=arguments.room, identity=arguments.identity, track_sid=sid, muted=not arguments.unmute
        )
        answers.append(_call(arguments, "MutePublishedTrack", mute, proto.MuteRoomTrackResponse).track)
    if arguments.track != "all" and not answers[0].sid:
        # Servers answer with nothing for a track that they do not know.
        raise CliError(f"{arguments.identity} has no track {arguments.track}", NOT_FOUND)
    if arguments.json:
        print_json([as_dict(track) for track in answers])
    else:
        print("\n".join(f"{track.sid} {'muted' if track.muted else 'not muted'}" for track in answers))
    return 0


def _move(arguments: argparse.Namespace) -> int:
    request = proto.MoveParticipantRequest(**_both_rooms(arguments))
    destination = {"destination_room": arguments.destination}
    _call(arguments, "MoveParticipant", request, proto.MoveParticipantResponse, **destination)
    _print_done(arguments, "moved")
    return 0


def _forward(arguments: argparse.Namespace) -> int:
    request = proto.ForwardParticipantRequest(**_both_rooms(arguments))
    destination = {"destination_room": arguments.destination}
    _call(arguments, "ForwardParticipant", request, proto.ForwardParticipantResponse, **destination)
    _print_done(arguments, "forwarded")
    return 0


def _both_rooms(arguments: argparse.Namespace) -> dict[str, str]:
    return {"room": arguments.room, "identity": arguments.identity, "destination_room": arguments.destination}


def _print_done(arguments: argparse.Namespace, what: str) -> None:
    if arguments.json:
        print_json({what: arguments.identity, "room": arguments.room, "destination": arguments.destination})
    else:
        print(f"{what} {arguments.identity} from {arguments.room} to {arguments.destination}")


def _print(info: models.ParticipantInfo, as_json: bool) -> None:
    if as_json:
        print_json(as_dict(info))
        return
    state = models.ParticipantInfo.State.Name(info.state)
    print(table(("IDENTITY", "STATE", "SID", "NAME"), [(info.identity, state, info.sid, info.name)]))
    if info.metadata:
        print(f"metadata: {shown(info.metadata)}")
    for name, value in sorted(info.attributes.items()):
        print(f"attribute {shown(name)}: {shown(value)}")
    if info.tracks:
        rows = [
            (t.sid, t.name, models.TrackSource.Name(t.source), t.mime_type, "yes" if t.muted else "no")
            for t in info.tracks
        ]
        print(table(("TRACK", "NAME", "SOURCE", "TYPE", "MUTED"), rows))
