"""`python -m lkactor ...` as a user types it, against a running server; the Python SDK looks on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.interop import LIMIT, MARKS, Server, party, run
from support.made_media import decode, make_audio, make_video, sample_count

from lkactor.cli.sources import DEMO

pytestmark = MARKS
SECRET = "LIVEKIT_API_SECRET"


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "lkactor", *words]


def environment(server: Server, **changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LIVEKIT_")}
    mine = {"LIVEKIT_URL": server.url, "LIVEKIT_API_KEY": server.api_key, SECRET: server.api_secret}
    return {**kept, **mine, **changes}


def cli(server: Server, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*words), env=environment(server, **changes), capture_output=True, text=True, timeout=60
    )
    assert server.api_secret not in done.stdout + done.stderr
    return done


def cli_json(server: Server, *words: str) -> Any:
    done = cli(server, *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextmanager
def running(server: Server, *words: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command(*words), env=environment(server), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    return line


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, err
    return out


# rooms, participants, tokens


def test_life_of_a_room(lk_server: Server, lk_room: str) -> None:
    made = cli_json(lk_server, "room", "create", lk_room, "--metadata", "one", "--max-participants", "3")
    assert (made["name"], made["metadata"], made["max_participants"]) == (lk_room, "one", 3)
    assert "turn_password" not in made
    assert [room["sid"] for room in cli_json(lk_server, "room", "list", lk_room)] == [made["sid"]]
    assert cli_json(lk_server, "room", "update", lk_room, "--metadata", "two")["metadata"] == "two"
    listed = cli(lk_server, "room", "list", lk_room).stdout
    assert listed.splitlines()[0].split() == ["SID", "NAME", "PARTICIPANTS", "PUBLISHERS", "METADATA"]
    assert cli(lk_server, "room", "delete", lk_room).returncode == 0
    assert cli_json(lk_server, "room", "list", lk_room) == []


def test_create_room_under_its_old_name(lk_server: Server, lk_room: str) -> None:
    assert cli_json(lk_server, "create-room", "--name", lk_room)["name"] == lk_room


def test_participants_are_seen_changed_and_removed(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room) as guests:
            alice = await guests.join("alice")
            shell = asyncio.to_thread
            listed = await shell(cli_json, lk_server, "participant", "list", lk_room)
            assert [info["identity"] for info in listed] == ["alice"]
            words = ("participant", "update", lk_room, "alice", "--metadata", "m", "--attribute", "k=v")
            changed = await shell(cli_json, lk_server, *words)
            assert (changed["metadata"], changed["attributes"]) == ("m", {"k": "v"})
            await alice.until(lambda: alice.local.metadata == "m", "metadata")
            seen = await shell(cli_json, lk_server, "participant", "get", lk_room, "alice")
            assert seen["metadata"] == "m"
            assert (await shell(cli, lk_server, "participant", "remove", lk_room, "alice")).returncode == 0
            await alice.event("disconnected")

    run(test)


def test_participants_are_forwarded_and_moved_and_hear_data(lk_server: Server, lk_room: str) -> None:
    stage = f"{lk_room}-stage"

    async def test() -> None:
        shell = asyncio.to_thread
        async with party(lk_server, lk_room) as guests, party(lk_server, stage) as there:
            alice, (carl,) = await guests.join("alice"), await there.meeting("carl")
            sent = await shell(cli_json, lk_server, "room", "send-data", lk_room, "hällo", "--topic", "chat")
            assert sent == {"room": lk_room, "sent": 6}
            packet = (await alice.event("data_received")).args[0]
            assert (packet.data, packet.topic) == ("hällo".encode(), "chat")
            words = ("room", "send-data", lk_room, "x", "--identity", "nobody", "--lossy")
            assert (await shell(cli, lk_server, *words)).stdout == "sent 1 octets to nobody\n"
            said = await shell(cli_json, lk_server, "participant", "forward", lk_room, "alice", stage)
            assert said == {"forwarded": "alice", "room": lk_room, "destination": stage}
            await carl.meets("alice")
            moved = await shell(cli, lk_server, "participant", "move", lk_room, "alice", stage)
            assert moved.stdout == f"moved alice from {lk_room} to {stage}\n"
            assert "alice" not in (await shell(cli, lk_server, "participant", "list", lk_room)).stdout
            nobody = await shell(cli, lk_server, "participant", "mute", stage, "carl", "TR_none")
            assert (nobody.returncode, "no track TR_none" in nobody.stderr) == (5, True)

    run(test)


@pytest.mark.parametrize(
    ("words", "changes", "status", "says"),
    [
        (("participant", "get", "nowhere", "nobody"), {}, 5, "does not exist"),
        (("room", "delete", "nowhere"), {}, 5, "does not exist"),
        (("room", "list"), {SECRET: "x" * 40}, 4, "does not accept API key"),
        (("room", "list"), {"LIVEKIT_API_KEY": ""}, 2, "LIVEKIT_API_KEY"),
        (("room", "list"), {"LIVEKIT_URL": "ftp://x"}, 2, "ftp://x"),
        (("room", "list"), {"LIVEKIT_URL": "ws://127.0.0.1:1"}, 3, "cannot reach"),
        (("join", "r", "--token", "eyJhbGciOiJIUzI1NiJ9.eyJhIjoxfQ.x"), {}, 4, "let us in"),
        (("join", "r"), {"LIVEKIT_URL": "ws://127.0.0.1:1"}, 3, "127.0.0.1:1"),
        (("join",), {}, 2, "which room"),
        (("publish", "r", "/nowhere.ivf"), {}, 2, "/nowhere.ivf"),
        (("publish", "r", __file__), {}, 2, ".ivf"),
        (("publish", "r"), {}, 2, "nothing to publish"),
        (("token", "create", "--join"), {}, 2, "--room and --identity"),
        (("load", "--publishers", "0", "--subscribers", "0"), {}, 2, "participants"),
        (("room", "frobnicate"), {}, 2, "invalid choice"),
        (("load", "--video", str(DEMO / "demo.ogg")), {}, 2, "--video is an .ivf"),
        (("load", "--video", "/nowhere.ivf"), {}, 2, "/nowhere.ivf"),
        (("drain",), {"LIVEKIT_URL": "ws://127.0.0.1:1"}, 3, "cannot reach"),
        (("drain",), {SECRET: "x" * 40}, 4, "does not accept API key"),
        (("participant", "move", "nowhere", "nobody", "there"), {}, 5, "does not exist"),
        (("participant", "forward", "here", "nobody", "here"), {}, 1, "same as source"),
        (("room", "send-data", "nowhere", "x"), {}, 5, "does not exist"),
        (("explain", "join", "nobody"), {}, 5, "no such attempt"),
        (("explain", "join", "nobody", "--json"), {}, 5, ""),
        (("events", "tail"), {SECRET: "x" * 40}, 4, "401"),
        (("events", "tail"), {"LIVEKIT_API_KEY": ""}, 2, "LIVEKIT_API_KEY"),
    ],
)
def test_what_goes_wrong_has_a_status_and_a_reason(
    lk_server: Server, words: tuple[str, ...], changes: dict[str, str], status: int, says: str
) -> None:
    done = cli(lk_server, *words, **changes)
    assert (done.returncode, says in done.stderr) == (status, True), done.stderr
    assert "Traceback" not in done.stderr
    assert "eyJ" not in done.stderr, "a token was printed"


def test_a_token_lets_the_python_sdk_in_and_is_explained(lk_server: Server, lk_room: str) -> None:
    words = ("token", "create", "--room", lk_room, "--identity", "bob", "--no-publish", "--valid-for", "1h")
    made = cli_json(lk_server, *words)
    done = cli(lk_server, "token", "explain", made["token"], "--json")
    report = json.loads(done.stdout)
    assert report["verified"] is True
    assert f"joining room '{lk_room}' as 'bob'" in report["allows"]
    assert "publishing: video.canPublish is false" in report["lacks"]
    assert report["problems"] == []
    without = cli(lk_server, "token", "explain", made["token"], **{SECRET: ""})
    assert without.returncode == 0
    assert "not checked" in without.stdout
    wrong = cli(lk_server, "token", "explain", made["token"], **{SECRET: "y" * 40})
    assert wrong.returncode == 1
    assert "does not fit" in wrong.stdout
    only = cli(lk_server, "create-token", "--join", "--room", lk_room, "--identity", "bob", "--token-only").stdout
    with running(lk_server, "join", lk_room, "--token", only.strip(), "--json") as joined:
        assert json.loads(first_line(joined))["identity"] == "bob"


def test_explain_of_bad_tokens(lk_server: Server, lk_room: str) -> None:
    old = lk_server.token("bob", lk_room, ttl=-600.0)
    for token, says in ((old, "expired"), ("nonsense", "no JWT"), ("e30.e30.e30", "no exp claim")):
        done = cli(lk_server, "token", "explain", token)
        assert (done.returncode, says in done.stdout) == (1, True), done.stdout


# media


def test_join_prints_what_happens(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        with running(lk_server, "join", lk_room, "--identity", "watch", "--json") as watch:
            assert json.loads(await asyncio.to_thread(first_line, watch))["event"] == "joined"
            async with party(lk_server, lk_room) as guests:
                alice = await guests.join("alice")
                await alice.meets("watch")
                await alice.local.publish_data(b"hello", topic="t", reliable=True)
                seen: list[dict[str, Any]] = []
                while not any(line["event"] == "data" for line in seen):
                    seen.append(json.loads(await asyncio.to_thread(first_line, watch)))
                assert (seen[0]["event"], seen[0]["identity"]) == ("participant_joined", "alice")
                assert seen[-1]["payload"] == "hello"
                assert seen[-1]["identity"] == "alice"
            watch.send_signal(signal.SIGINT)
            out, err = await asyncio.to_thread(watch.communicate, None, LIMIT)
            assert json.loads(out.splitlines()[-1])["event"] == "left"
            assert (watch.returncode, err) == (130, "")

    run(test)


@pytest.mark.parametrize(
    "mimes",
    [("video/vp8", "audio/opus"), ("video/vp9",), ("video/av1",), ("video/h264", "audio/opus")],
    ids=lambda mimes: "+".join(mime.partition("/")[2] for mime in mimes),
)
def test_what_is_published_from_files_is_subscribed_into_files(
    lk_server: Server, lk_room: str, tmp_path: Path, mimes: tuple[str, ...]
) -> None:
    files = []
    for mime in mimes:
        path = tmp_path / {"video/h264": "v.h264", "audio/opus": "a.ogg"}.get(mime, "v.ivf")
        make_audio(path) if mime == "audio/opus" else make_video(path, mime)
        files.append(str(path))
    output = tmp_path / "out"
    words = ("subscribe", lk_room, "--identity", "sub", "-o", str(output), "--until-idle", "--json")
    with running(lk_server, *words) as subscriber:
        lk_server.wait_for(lambda _: any(p["identity"] == "sub" for p in who(lk_server, lk_room)))  # type: ignore[attr-defined]
        done = cli(lk_server, "publish", lk_room, "--identity", "pub", "--fps", "15", "--duration", "3", *files)
        assert done.returncode == 0, done.stderr
        written = [json.loads(line) for line in finish(subscriber).splitlines()]
    assert sorted(entry["mime"] for entry in written) == sorted(mimes)
    for entry in written:
        path = Path(entry["file"])
        assert path.name.startswith("pub-")
        if entry["mime"] == "audio/opus":
            assert sample_count(path) > 1.5 * 48000
        else:
            pictures = decode(path)
            assert len(pictures) == entry["frames"] > 20, "every frame that came can be decoded"
            assert (pictures[0].width, pictures[0].height) == (160, 96)


def who(server: Server, room: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cli_json(server, "participant", "list", room)
    return found


def test_the_python_sdk_sees_the_demo(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room) as guests:
            alice = await guests.join("alice")
            with running(lk_server, "join", lk_room, "--identity", "demo", "--publish-demo"):
                await alice.until(lambda: len(alice.seen("track_subscribed")) == 2, "two tracks")
                kinds = {event.args[0].kind for event in alice.seen("track_subscribed")}
                assert len(kinds) == 2
                publications = alice.room.remote_participants["demo"].track_publications.values()
                assert {publication.name for publication in publications} == {"demo"}
                assert {publication.mime_type.lower() for publication in publications} == {"video/vp8", "audio/opus"}

    run(test)


def test_mute_from_the_command_line(lk_server: Server, lk_room: str) -> None:
    with running(lk_server, "publish", lk_room, "--identity", "demo", "--publish-demo") as publisher:
        first_line(publisher)
        lk_server.wait_for(lambda _: any(len(p["tracks"]) == 2 for p in who(lk_server, lk_room)))  # type: ignore[attr-defined]
        muted = cli_json(lk_server, "participant", "mute", lk_room, "demo", "all")
        assert [track["muted"] for track in muted] == [True, True]


def test_publish_once_ends_by_itself(lk_server: Server, lk_room: str, tmp_path: Path) -> None:
    make_video(tmp_path / "v.ivf", "video/vp8", seconds=0.5)
    done = cli(lk_server, "publish", lk_room, "--once", str(tmp_path / "v.ivf"))
    assert done.returncode == 0, done.stderr


def test_a_damaged_file_is_named(lk_server: Server, lk_room: str, tmp_path: Path) -> None:
    path = tmp_path / "v.ivf"
    make_video(path, "video/vp8", seconds=0.5)
    path.write_bytes(path.read_bytes()[:-5])
    done = cli(lk_server, "publish", lk_room, str(path))
    assert (done.returncode, "v.ivf is damaged" in done.stderr) == (1, True), done.stderr


def test_load_measures_what_was_sent(lk_server: Server, lk_room: str) -> None:
    words = ("load", lk_room, "--publishers", "1", "--audio-publishers", "1", "--subscribers", "2", "--duration", "2")
    report = cli_json(lk_server, *words, "--bitrate", "400k")
    assert report["errors"] == []
    assert len(report["subscribers"]) == 2
    for row in report["subscribers"]:
        assert (row["tracks"], row["expected_tracks"]) == (2, 2)
        assert row["packets"] > 50
        assert 0 < row["latency_ms"]["p50"] <= row["latency_ms"]["p95"] <= row["latency_ms"]["p99"]
        assert row["first_media_ms"] > 0
        assert row["bitrate"] > 0.7 * 400e3, "the demo is filled up to the bitrate"
    assert report["join_ms"]["count"] == 4
    assert report["latency_samples"] > 100
    assert 0 < report["generator"]["cpu"] < 2
    assert report["generator"]["waited_ms"]["max"] > 0, "the kernel says when packets came"


def test_what_load_sends_can_be_played(lk_server: Server, lk_room: str, tmp_path: Path) -> None:
    words = ("load", lk_room, "--publishers", "1", "--audio-publishers", "1", "--subscribers", "1", "--duration", "30")
    with running(lk_server, *words, "--bitrate", "800k"):
        out = cli(lk_server, "subscribe", lk_room, "-o", str(tmp_path), "--duration", "4", "--json").stdout
    written = {entry["mime"]: entry for entry in map(json.loads, out.splitlines())}
    video = written["video/vp8"]
    pictures = decode(Path(video["file"]))
    assert len(pictures) == video["frames"] > 20
    assert (pictures[0].width, pictures[0].height) == (320, 180)
    assert video["bytes"] / video["frames"] > 0.7 * 800e3 / 8 / 30
    assert sample_count(Path(written["audio/opus"]["file"])) > 48000


def test_load_sends_files_as_they_are(lk_server: Server, lk_room: str, tmp_path: Path) -> None:
    path = tmp_path / "v.h264"
    make_video(path, "video/h264")
    words = ("load", lk_room, "--video", str(path), "--fps", "15", "--subscribers", "1", "--duration", "2")
    report = cli_json(lk_server, *words)
    assert report["errors"] == []
    assert report["total"]["tracks"] == 1
    assert report["latency_samples"] > 10


# configuration


def test_check_says_where_values_come_from(lk_server: Server, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("port: 7000\nrtc:\n  tcp_port: 7001\nkeys:\n  key: " + "s" * 40 + "\n")
    words = ("check", "--config", str(path), "--node-ip", "192.0.2.1", "--json", "--all")
    done = cli(lk_server, *words, UDP_PORT="9000")
    values = {entry["key"]: (entry["value"], entry["from"]) for entry in json.loads(done.stdout)["values"]}
    assert values["port"] == ("7000", f"{path} line 1")
    assert values["rtc.tcp_port"] == ("7001", f"{path} line 3")
    assert values["rtc.udp_port"] == ("9000", "env UDP_PORT")
    assert values["rtc.node_ip"] == ("192.0.2.1", "flag --node-ip")
    assert values["room.auto_create"] == ("True", "default")
    assert "s" * 40 not in done.stdout
    path.write_text("prot: 7000\n")
    wrong = cli(lk_server, "check", "--config", str(path))
    assert (wrong.returncode, "did you mean port" in wrong.stderr) == (1, True)


def test_ports(lk_server: Server) -> None:
    done = cli(lk_server, "ports", "--dev", "--port", "1234", "--json")
    assert {"port": "1234", "transport": "tcp", "use": "HTTP, WebSocket, API"} in json.loads(done.stdout)
    assert "7881" in cli(lk_server, "ports").stdout, "who opens a firewall needs no key"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command(lk_server: Server, shell: str) -> None:
    script = cli(lk_server, "completion", shell).stdout
    for word in ("participant", "create-join-token", "subscribe", "explain", "max-participants"):
        assert word in script


def test_bash_completes_a_flag() -> None:
    script = subprocess.run(command("completion", "bash"), capture_output=True, text=True, check=True).stdout
    ask = 'COMP_WORDS=(lkactor room create --ma); COMP_CWORD=3; _lkactor; echo "${COMPREPLY[*]}"'
    done = subprocess.run(["bash", "-c", script + ask], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["--max-participants", "--max-playout-delay"]


@pytest.mark.parametrize("words", [(), ("room",), ("room", "create"), ("publish",), ("token", "explain")])
def test_help(words: tuple[str, ...]) -> None:
    done = subprocess.run(command(*words, "--help"), capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "usage: lkactor" in done.stdout
