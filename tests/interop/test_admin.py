"""What operators see: health, verdicts of joins, Prometheus, draining; with real clients and the command line."""

import asyncio
import subprocess
import sys
from typing import Any

import httpx
import pytest
from livekit import rtc
from prometheus_client.parser import text_string_to_metric_families
from support.interop import LIMIT, MARKS, Client, Server, eventually, hears_tone, party, run

from lkactor.testing import LkServer

pytestmark = MARKS


def get(server: Server, path: str, **grants: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {server.token(**grants)}"} if grants else {}
    return httpx.get(f"{server.http_url}{path}", headers=headers, timeout=LIMIT)


def verdicts(server: Server, **query: str) -> list[dict[str, Any]]:
    answer = get(server, f"/debug/joins?{httpx.QueryParams(query)}", room_list=True)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["joins"]
    return found


def cli(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lkactor", *arguments, "--url", server.url]
    command += ["--api-key", server.api_key, "--api-secret", server.api_secret]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_health_and_readiness(lk_server: Server) -> None:
    assert [get(lk_server, path).status_code for path in ("/", "/healthz", "/readyz")] == [200, 200, 200]


def test_debug_needs_a_token_that_may_list(lk_server: Server) -> None:
    assert get(lk_server, "/debug/joins").status_code == 401
    assert get(lk_server, "/debug/joins", room_join=True, room="x").status_code == 403
    assert get(lk_server, "/debug/rooms", room_list=True).json()["actors"]


def test_the_loop_is_watched(lk_server: Server) -> None:
    loop = get(lk_server, "/debug/loop", room_list=True).json()
    assert loop["longest_turn_ms"] > 0
    assert sum(second["turns"] for second in loop["seconds"]) > 0


def test_the_verdict_of_a_good_join(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            alice, bob = await guests.meeting("alice", "bob")
            await alice.publish_tone()
            await hears_tone(await bob.track("alice", "tone"))
            (verdict,) = await asyncio.to_thread(verdicts, lk_server, room=lk_room, identity="bob")
            assert verdict["outcome"] == "joined"
            steps = {step["name"]: step for step in verdict["steps"]}
            assert {name: step["status"] for name, step in steps.items()} == dict.fromkeys(steps, "ok")
            # DTLS may be done on a path that ICE has validated and not yet nominated.
            for order in (("offer", "ice", "data", "media"), ("offer", "dtls", "data", "media")):
                times = [steps[name]["ms"] for name in ("token", "signal", *order)]
                assert times == sorted(times), steps
            assert "over udp 127.0.0.1" in steps["ice"]["detail"] or "over udp" in steps["ice"]["detail"]
            (verdict,) = await asyncio.to_thread(verdicts, lk_server, room=lk_room, identity="alice")
            (media,) = (step for step in verdict["steps"] if step["name"] == "media")
            assert media["status"] == "ok" and "track.flows" in media["detail"], "what alice sends counts, too"
            said = await asyncio.to_thread(cli, lk_server, "explain", "join", "bob", "--room", lk_room)
            assert said.returncode == 0 and f"bob in {lk_room}: joined" in said.stdout

    run(test)


def test_the_verdict_of_refused_joins(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        expired = lk_server.token(identity="late", room=lk_room, ttl=-3600.0)  # type: ignore[arg-type]
        for token, cause in ((expired, "token: 401"), (f"{lk_server.token(identity='late', room=lk_room)}x", "token:")):
            with pytest.raises(rtc.ConnectError):
                await Client(lk_server, "late").connect(lk_room, token=token)
            found = await asyncio.to_thread(verdicts, lk_server, room=lk_room, identity="late")
            assert found[-1]["outcome"] == "failed"
            assert found[-1]["cause"].startswith(cause)
        nobody = await asyncio.to_thread(cli, lk_server, "explain", "join", "never heard of")
        assert nobody.returncode == 5 and "no such attempt" in nobody.stderr

    run(test)


def samples(port: int, **options: Any) -> dict[tuple[str, ...], float]:
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=LIMIT, **options)
    assert answer.status_code == 200
    return {
        (sample.name, *(v for k, v in sorted(sample.labels.items()) if k not in ("node_id", "node_type"))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def free_port() -> int:
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def test_prometheus_counts_a_meeting() -> None:
    port = free_port()

    async def test(server: LkServer) -> None:
        async with party(server, "hall") as guests:
            alice, bob = await guests.meeting("alice", "bob")
            await alice.publish_tone()
            await hears_tone(await bob.track("alice", "tone"))
            found = await asyncio.to_thread(samples, port, auth=("scraper", "let-me-in"))
            assert found["livekit_room_total",] == 1
            assert found["livekit_participant_total",] == 2
            assert found["livekit_track_published_total", "AUDIO"] == 1
            assert found["livekit_participant_join_total", "rtc_active"] == 2
            assert found["livekit_session_start_time_ms_count", "18"] == 2
            # The parser, not the server, gives every counter this ending.
            assert found["livekit_track_publish_counter_total", "AUDIO", "success"] == 1
            assert found["livekit_track_subscribe_counter_total", "", "attempt"] == 1
            assert found["livekit_track_subscribed_total", "AUDIO"] == 1
            assert found["lkactor_datagrams_total", "outgoing"] > 25
            assert found["livekit_node_messages_total", "request", "success", "signal"] > 3
            assert found["livekit_forward_latency_ns_count",] >= 1
            await alice.close()
            await asyncio.to_thread(
                server.wait_for, lambda server: not any("/TR_" in actor.path for actor in server.actors())
            )
            found = await asyncio.to_thread(samples, port, auth=("scraper", "let-me-in"))
            assert found["livekit_track_published_total", "AUDIO"] == 0
            assert found["livekit_track_subscribed_total", "AUDIO"] == 0
            for direction in ("incoming", "outgoing"):
                assert found["livekit_packet_total", "", direction, "initial"] > 25
                assert found["livekit_packet_bytes_total", "", direction, "initial"] > 2000
            assert found["livekit_packet_loss_percent_count", "", "incoming", "MICROPHONE", "AUDIO"] >= 1
            assert found["livekit_packet_out_of_order_percent_count", "", "incoming", "MICROPHONE", "AUDIO"] >= 1

    with LkServer(f"prometheus: {{port: {port}, username: scraper, password: let-me-in}}") as server:
        assert httpx.get(f"http://127.0.0.1:{port}/").status_code == 401
        run(lambda: test(server))


def test_drain_refuses_new_rooms_and_ends_with_its_deadline() -> None:
    async def test(server: LkServer) -> None:
        alice = await Client(server, "alice").connect("old")
        said = await asyncio.to_thread(cli, server, "drain", "--deadline", "3600")
        assert (said.returncode, said.stdout) == (0, "draining: everyone leaves in 3600 s\n"), said.stderr
        assert get(server, "/readyz").status_code == 503
        with pytest.raises(rtc.ConnectError):
            await Client(server, "bob").connect("new")
        bob = await Client(server, "bob").connect("old")
        assert (await asyncio.to_thread(cli, server, "undrain")).returncode == 0
        assert get(server, "/readyz").status_code == 200
        carol = await Client(server, "carol").connect("new")
        assert (await asyncio.to_thread(cli, server, "drain", "--deadline", "0")).returncode == 0
        for client in (alice, bob, carol):
            gone = await client.event("disconnected")
            assert gone.args[0] == rtc.DisconnectReason.SERVER_SHUTDOWN
        await eventually(lambda: asyncio.to_thread(lambda: not server.rooms()), "rooms closed")
        server.check_no_leaks()

    with LkServer() as server:
        run(lambda: test(server))
