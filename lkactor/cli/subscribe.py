"""`lkactor subscribe`: every track of a room into a file that plays."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from lkactor.cli.common import FAILED, CliError, add_command, duration, note, print_json, progress, table
from lkactor.cli.join import CLEAN, say_breaks
from lkactor.cli.participant_options import Stop, access_of, participant_options, run_client
from lkactor.media.files import TrackWriter

if TYPE_CHECKING:
    from lkactor.client.events import SessionEvent
    from lkactor.client.tracks import RemoteTrack

UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
MAX_NAME = 60
MAX_FILES = 1024


def add_parser(commands: Any) -> None:
    parser = add_command(
        commands,
        "subscribe",
        _run,
        "write every track of a room to a file: .ivf, .ogg, .h264",
        example="lkactor subscribe demo --output recording --duration 1m --dev",
    )
    parser.add_argument("--output", "-o", default=".", metavar="DIR", help="where the files go (.); made if missing")
    parser.add_argument("--participant", action="append", default=[], metavar="IDENTITY", help="only of these")
    parser.add_argument("--only", choices=("audio", "video"))
    parser.add_argument("--duration", type=duration, metavar="TIME", help="end after 30s, 10m, ...")
    parser.add_argument("--until-idle", action="store_true", help="end when the last track has ended")
    participant_options(parser, identity="subscriber")


class Recorder:
    """Files of one run."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._directory = Path(arguments.output)
        self._only, self._participants = arguments.only, set(arguments.participant)
        self._open: dict[str, TrackFile] = {}
        self.files: list[TrackFile] = []
        self._names: set[str] = set()
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CliError(f"{self._directory}: {error.strerror}") from None

    def on_event(self, event: SessionEvent) -> None:
        from lkactor.client.events import TrackEnded, TrackSubscribed

        say_breaks(event)
        if isinstance(event, TrackSubscribed):
            self._begin(event.track)
        elif isinstance(event, TrackEnded):
            self._end(event.track)

    @property
    def idle(self) -> bool:
        return bool(self.files) and not self._open

    def close(self) -> None:
        for file in self._open.values():
            file.track.finish()
            file.close()
        self._open.clear()

    def _begin(self, track: RemoteTrack) -> None:
        kind = "audio" if track.info.type == 0 else "video"
        wanted = not self._participants or track.participant.identity in self._participants
        if not wanted or (self._only and kind != self._only) or len(self.files) >= MAX_FILES:
            return
        file = TrackFile(track, self._directory, self._names)
        self._open[track.info.sid] = file
        self.files.append(file)
        track.on_frame = file.write

    def _end(self, track: RemoteTrack) -> None:
        file = self._open.get(track.info.sid)
        if file is not None and file.track is track:
            del self._open[track.info.sid]
            file.close()


class TrackFile:
    """Opened with the first frame: only then the codec is known."""

    def __init__(self, track: RemoteTrack, directory: Path, names: set[str]) -> None:
        """`names` are those of this run: a track that comes back, or changes its codec, gets a file of its own."""
        self.track = track
        self.path: Path | None = None
        self.frames = self.bytes = 0
        self._directory = directory
        self._file: IO[bytes] | None = None
        self._writer: TrackWriter | None = None
        self._mime = ""
        self._names = names

    def write(self, frame: bytes, timestamp: int, keyframe: bool) -> None:
        if self.track.mime != self._mime:
            self.close()
            self._start(self.track.mime)
        if self._file is not None and self._writer is not None:
            self._file.write(self._writer.frame(frame, timestamp))
            self.frames += 1
            self.bytes += len(frame)

    def close(self) -> None:
        file, writer = self._file, self._writer
        self._file = self._writer = None
        if file is None or writer is None:
            return
        file.write(writer.finish())
        if writer.patch is not None:
            offset, data = writer.patch
            file.seek(offset)
            file.write(data)
        file.close()

    def _start(self, mime: str) -> None:
        self._mime = mime
        suffix = TrackWriter.suffix(mime)
        if suffix is None:
            note(f"no file format for {mime}: track {self.track.info.sid} is not written")
            return
        info = self.track.info
        names = (self.track.participant.identity or self.track.participant.sid, info.name, info.sid)
        base = "-".join(UNSAFE.sub("_", name)[:MAX_NAME].lstrip(".") for name in names if name)
        name, part = f"{base}{suffix}", 1
        while name in self._names:
            part += 1
            name = f"{base}-{part}{suffix}"
        self._names.add(name)
        self.path = self._directory / name
        self._writer = TrackWriter(mime, width=info.width, height=info.height)
        # Written as frames come, in small pieces: an await per frame would cost more than the write.
        self._file = self.path.open("wb")


def _run(arguments: argparse.Namespace) -> int:
    url, token = access_of(arguments, can_publish=False, can_publish_data=False)
    recorder = Recorder(arguments)

    async def main(stop: Stop) -> int:
        import trio

        from lkactor.client.session import open_session

        try:
            async with open_session(url, token, on_event=recorder.on_event, way=arguments.transport) as session:
                idle = trio.Event()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_watch, recorder, idle, arguments.until_idle)
                    await stop.wait(session.left, idle, within=arguments.duration)
                    nursery.cancel_scope.cancel()
                ended = session.left.is_set() and session.reason not in CLEAN
                if session.left.is_set():
                    note(f"the server ended the session: {session.reason}")
        finally:
            recorder.close()
            _report(recorder, arguments.json)
        return FAILED if ended else 0

    return run_client(main, url)


async def _watch(recorder: Recorder, idle: Any, until_idle: bool) -> None:
    import trio

    while True:
        await trio.sleep(0.5)
        size = sum(file.bytes for file in recorder.files)
        progress(f"{len(recorder.files)} tracks, {sum(f.frames for f in recorder.files)} frames, {size / 1000:.0f} kB")
        if until_idle and recorder.idle:
            idle.set()


def _report(recorder: Recorder, as_json: bool) -> None:
    if as_json:
        for file in recorder.files:
            print_json(_fields(file))
        return
    rows = [tuple(_fields(file).values()) for file in recorder.files]
    print(table(("FILE", "TRACK", "IDENTITY", "TYPE", "FRAMES", "BYTES"), rows) if rows else "no tracks")


def _fields(file: TrackFile) -> dict[str, object]:
    return {
        "file": str(file.path or "(nothing came)"),
        "track": file.track.info.sid,
        "identity": file.track.participant.identity,
        "mime": file.track.mime,
        "frames": file.frames,
        "bytes": file.bytes,
    }
