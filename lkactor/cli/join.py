"""`lkactor join` prints what happens in a room; `lkactor publish` publishes files into it."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lkactor.cli.common import FAILED, USAGE, CliError, add_command, duration, note, print_json, progress, shown
from lkactor.cli.participant_options import Stop, access_of, participant_options, run_client
from lkactor.cli.sources import Source, open_sources, publish_all, source_options

if TYPE_CHECKING:
    from lkactor.client.events import SessionEvent
    from lkactor.client.session import Session

CLEAN = ("CLIENT_INITIATED", "ROOM_DELETED", "ROOM_CLOSED", "PARTICIPANT_REMOVED", "DUPLICATE_IDENTITY")
TICK = 1.0


def add_parser(commands: Any) -> None:
    join = add_command(
        commands,
        "join",
        _join,
        "join a room and print what happens in it",
        example="lkactor join demo --identity watcher --json --dev",
    )
    join.add_argument("--publish", action="append", default=[], metavar="FILE", help=".ivf, .ogg or .h264; repeatable")
    join.add_argument("--auto-subscribe", action="store_true", help="receive the tracks, too")
    publish = add_command(
        commands,
        "publish",
        _publish,
        "publish files into a room: .ivf (VP8, VP9, AV1), .ogg (Opus), .h264 (Annex B)",
        example="lkactor publish demo talk.ivf talk.ogg --dev",
    )
    participant_options(join, identity="lkactor")
    participant_options(publish, identity="publisher")
    publish.add_argument("files", nargs="*", metavar="FILE")
    for parser in (join, publish):
        source_options(parser)
        parser.add_argument("--duration", type=duration, metavar="TIME", help="leave after 30s, 10m, ...")


def _join(arguments: argparse.Namespace) -> int:
    return _participate(arguments, open_sources(arguments.publish, arguments), arguments.auto_subscribe, events=True)


def _publish(arguments: argparse.Namespace) -> int:
    files = list(arguments.files)
    if arguments.room_name and (arguments.room or arguments.token):
        # The room was named by a flag, so the first word is a file, too.
        files.insert(0, arguments.room_name)
        arguments.room_name = None
    sources = open_sources(files, arguments)
    if not sources:
        raise CliError("nothing to publish: name files, or --publish-demo", USAGE)
    return _participate(arguments, sources, False, events=False)


def _participate(arguments: argparse.Namespace, sources: list[Source], subscribe: bool, *, events: bool) -> int:
    url, token = access_of(arguments)
    report = _printer(arguments.json) if events else say_breaks

    async def main(stop: Stop) -> int:
        import trio

        from lkactor.client.session import open_session

        async with open_session(
            url, token, on_event=report, auto_subscribe=subscribe, way=arguments.transport
        ) as session:
            if sources:
                _say_published(arguments.json, session, sources)
            done = trio.Event()
            async with trio.open_nursery() as nursery:
                if sources:
                    nursery.start_soon(_publish_then, session, sources, arguments.once, done)
                    nursery.start_soon(_show_progress, session)
                await stop.wait(session.left, done, within=arguments.duration)
                nursery.cancel_scope.cancel()
            if session.left.is_set():
                if not events:
                    note(f"the server ended the session: {session.reason}")
                return 0 if session.reason in CLEAN else FAILED
        return 0

    return run_client(main, url)


async def _publish_then(session: Session, sources: list[Source], once: bool, done: Any) -> None:
    await publish_all(session, sources, once=once)
    done.set()


async def _show_progress(session: Session) -> None:
    import trio

    while True:
        await trio.sleep(TICK)
        tracks = session.local_tracks.values()
        sent = sum(track.octets for track in tracks)
        packets = sum(track.packets for track in tracks)
        progress(f"{len(tracks)} tracks, {packets} packets, {sent / 1000:.0f} kB sent")


def _say_published(as_json: bool, session: Session, sources: list[Source]) -> None:
    me = session.join.participant
    if as_json:
        files = [{"file": source.path, "mime": source.spec.mime} for source in sources]
        print_json({"event": "publishing", "identity": me.identity, "room": session.join.room.name, "tracks": files})
    else:
        for source in sources:
            size = f" {source.media.width}x{source.media.height}" if source.media.width else ""
            print(f"publishing {source.path} ({source.spec.mime}{size}) as {me.identity}", flush=True)


def say_breaks(event: SessionEvent) -> None:
    """A session that comes back is no failure, but whoever looks at it wants to know."""
    from lkactor.client.events import Reconnected, Reconnecting

    if isinstance(event, Reconnecting):
        note(f"{event.reason}; reconnecting")
    elif isinstance(event, Reconnected):
        note(f"{'resumed' if event.resumed else 'joined again'} after {event.seconds:.1f} s")


def _printer(as_json: bool) -> Callable[[SessionEvent], None]:
    def report(event: SessionEvent) -> None:
        fields = describe(event)
        if fields is None:
            return
        if as_json:
            print_json({"at": round(time.time(), 3), **fields})
        else:
            name = fields.pop("event")
            words = " ".join(
                f"{key}={shown(_short(value))}" for key, value in fields.items() if value not in ("", None)
            )
            print(f"{time.strftime('%H:%M:%S')} {name} {words}".rstrip(), flush=True)

    return report


def _short(value: object) -> object:
    return json.dumps(value) if isinstance(value, dict | list | bool) else value


def describe(event: SessionEvent) -> dict[str, Any] | None:
    """One event as flat fields; None for what is not worth a line."""
    from livekit.protocol import models

    from lkactor.client import events as e

    match event:
        case e.Joined(join=join):
            server = join.server_info.version
            return {
                "event": "joined",
                "room": join.room.name,
                "sid": join.room.sid,
                "identity": join.participant.identity,
                "participant_sid": join.participant.sid,
                "server_version": server,
            }
        case e.ParticipantJoined(info=info):
            return {"event": "participant_joined", **_who(info), "name": info.name, "metadata": info.metadata}
        case e.ParticipantChanged(info=info):
            state = models.ParticipantInfo.State.Name(info.state)
            return {"event": "participant_changed", **_who(info), "state": state, "metadata": info.metadata}
        case e.ParticipantLeft(info=info):
            reason = models.DisconnectReason.Name(info.disconnect_reason)
            return {"event": "participant_left", **_who(info), "reason": reason}
        case e.TrackPublished(participant=info, track=track) | e.TrackUnpublished(participant=info, track=track):
            name = "track_published" if isinstance(event, e.TrackPublished) else "track_unpublished"
            return {"event": name, "identity": info.identity, **_track(track)}
        case e.TrackSubscribed(track=remote) | e.TrackEnded(track=remote):
            name = "track_subscribed" if isinstance(event, e.TrackSubscribed) else "track_ended"
            return {"event": name, "identity": remote.participant.identity, **_track(remote.info)}
        case e.DataReceived(packet=packet):
            return _data(packet)
        case e.SpeakersChanged(speakers=speakers):
            found = [{"sid": s.sid, "level": round(s.level, 3), "active": s.active} for s in speakers]
            return {"event": "speakers_changed", "speakers": found}
        case e.RoomChanged(room=room):
            return {"event": "room_changed", "room": room.name, "metadata": room.metadata}
        case e.Reconnecting(reason=reason):
            return {"event": "reconnecting", "reason": reason}
        case e.Reconnected(resumed=resumed, seconds=seconds):
            return {"event": "reconnected", "resumed": resumed, "seconds": seconds}
        case e.Left(reason=reason):
            return {"event": "left", "reason": reason}
    return None


def _who(info: Any) -> dict[str, Any]:
    return {"identity": info.identity, "sid": info.sid}


def _track(track: Any) -> dict[str, Any]:
    from livekit.protocol import models

    return {
        "track": track.sid,
        "name": track.name,
        "source": models.TrackSource.Name(track.source).lower(),
        "mime": track.mime_type,
        "muted": track.muted,
    }


def _data(packet: Any) -> dict[str, Any]:
    kind = packet.WhichOneof("value") or "unknown"
    fields: dict[str, Any] = {"event": "data", "kind": kind, "identity": packet.participant_identity}
    if kind == "user":
        fields |= {"topic": packet.user.topic, "payload": packet.user.payload.decode("utf-8", "replace")}
    elif kind == "chat_message":
        fields["message"] = packet.chat_message.message
    return fields
