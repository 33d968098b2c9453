"""Agents: a stock livekit-agents worker gets jobs and joins; AgentDispatchService; the worker protocol on the wire."""

import asyncio
import json
import time
from typing import Any

import aiohttp
import httpx
import pytest
from livekit import api, rtc
from livekit.protocol import agent, agent_dispatch, models
from livekit.protocol import room as room_api
from support.agent_worker import PYTHON, agent_worker
from support.interop import LIMIT, MARKS, Client, Server, party, raw_token, run

pytestmark = [*MARKS, pytest.mark.timeout(240)]
needs_worker = pytest.mark.skipif(not PYTHON.exists(), reason="livekit-agents is not installed: bash tests/setup.sh")


class Human:
    """A participant that asks agents what they are."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.told: dict[str, dict[str, str]] = {}
        client.room.on("data_received", self._hear)

    def _hear(self, packet: rtc.DataPacket) -> None:
        if packet.topic == "told" and packet.participant is not None:
            self.told[packet.participant.identity] = json.loads(packet.data)

    async def meets(self, label: str, limit: float = 60.0) -> dict[str, str]:
        """The answer of the first agent with this label."""
        async with asyncio.timeout(limit):
            while True:
                for answer in self.told.values():
                    if answer["label"] == label:
                        return answer
                await self.client.local.publish_data("?", topic="ask")
                await asyncio.sleep(0.2)


def service(server: Server) -> api.LiveKitAPI:
    return api.LiveKitAPI(server.http_url, server.api_key, server.api_secret)


@needs_worker
def test_a_stock_worker_joins_every_room_that_names_no_agent(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            (alice,) = await guests.meeting("alice")
            answer = await Human(alice).meets("one")
            (peer,) = alice.room.remote_participants.values()
            assert peer.kind == rtc.ParticipantKind.PARTICIPANT_KIND_AGENT
            assert peer.attributes["label"] == "one" and peer.attributes["lk.agent_name"] == ""
            async with service(lk_server) as lk:
                (dispatch,) = await lk.agent_dispatch.list_dispatch(lk_room)
                (job,) = dispatch.state.jobs
                assert (job.id, job.type) == (answer["job"], agent.JobType.JT_ROOM)
                assert job.state.status == agent.JobStatus.JS_RUNNING
                assert job.state.participant_identity == peer.identity
                (room,) = (await lk.room.list_rooms(api.ListRoomsRequest(names=[lk_room]))).rooms
                assert room.num_participants == 1, "agents are not counted"

    with agent_worker(lk_server, "one"):
        run(test)


@needs_worker
def test_named_agents_come_when_they_are_dispatched(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, False) as guests, service(lk_server) as lk:
            (alice,) = await guests.meeting("alice")
            human = Human(alice)
            request = api.CreateAgentDispatchRequest(agent_name="helper", room=lk_room, metadata="by the API")
            made = await lk.agent_dispatch.create_dispatch(request)
            assert made.id.startswith("AD_") and made.agent_name == "helper"
            assert (await human.meets("named"))["metadata"] == "by the API"
            left = asyncio.Event()
            alice.room.on("participant_disconnected", lambda _: left.set())
            await lk.agent_dispatch.delete_dispatch(made.id, lk_room)
            await asyncio.wait_for(left.wait(), LIMIT)
            assert made.id not in [dispatch.id for dispatch in await lk.agent_dispatch.list_dispatch(lk_room)]

    with agent_worker(lk_server, "named", name="helper"):
        run(test)


@needs_worker
def test_a_token_dispatches_an_agent_to_the_room_it_makes(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        config = api.RoomConfiguration(agents=[api.RoomAgentDispatch(agent_name="helper", metadata="by the token")])
        token = api.AccessToken(lk_server.api_key, lk_server.api_secret).with_identity("alice")
        token = token.with_grants(api.VideoGrants(room_join=True, room=lk_room)).with_room_config(config)
        client = Client(lk_server, "alice")
        await client.connect(lk_room, token=token.to_jwt())
        try:
            assert (await Human(client).meets("named"))["metadata"] == "by the token"
        finally:
            await client.room.disconnect()

    with agent_worker(lk_server, "named", name="helper"):
        run(test)


@needs_worker
def test_a_publisher_job_comes_with_the_first_track(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, False) as guests, service(lk_server) as lk:
            (alice,) = await guests.meeting("alice")
            (before,) = await lk.agent_dispatch.list_dispatch(lk_room)
            assert not before.state.jobs
            await alice.publish_tone()
            await Human(alice).meets("listener")
            (after,) = await lk.agent_dispatch.list_dispatch(lk_room)
            (job,) = after.state.jobs
            assert (job.type, job.participant.identity) == (agent.JobType.JT_PUBLISHER, "alice")

    with agent_worker(lk_server, "listener", kind="PUBLISHER"):
        run(test)


@needs_worker
def test_a_killed_workers_job_goes_to_another(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, False) as guests, service(lk_server) as lk:
            (alice,) = await guests.meeting("alice")
            human = Human(alice)
            await human.meets("first")
            with agent_worker(lk_server, "second"):
                first.kill()
                await human.meets("second", 90.0)
            (dispatch,) = await lk.agent_dispatch.list_dispatch(lk_room)
            states = [job.state.status for job in dispatch.state.jobs]
            assert states[0] == agent.JobStatus.JS_FAILED and len(states) == 2

    with agent_worker(lk_server, "first") as first:
        run(test, 150.0)


# -- the API without workers -------------------------------------------------------------------------------------------


async def twirp(
    server: Server, method: str, body: dict[str, Any], *, name: str = "AgentDispatchService"
) -> httpx.Response:
    token = raw_token(server, video={"roomAdmin": True, "roomCreate": True, "room": body.get("room", "")})
    async with httpx.AsyncClient(timeout=LIMIT) as client:
        url = f"{server.http_url}/twirp/livekit.{name}/{method}"
        return await client.post(url, json=body, headers={"Authorization": f"Bearer {token}"})


def test_dispatch_answers_as_the_reference(lk_server: Server, lk_room: str) -> None:
    """Asked of livekit-server 1.13.5, word for word."""

    async def test() -> None:
        missing = "twirp error unknown: no response from servers"
        create = {"room": lk_room, "agent_name": "n"}
        for method, body, status, code, text in (
            ("ListDispatch", {"room": lk_room}, 503, "unavailable", missing),
            ("DeleteDispatch", {"room": lk_room, "dispatch_id": "x"}, 503, "unavailable", missing),
            ("CreateDispatch", create | {"deployment": "a_b"}, 400, "invalid_argument",
             "twirp error unknown: deployment contains reserved character '_'"),
            ("CreateDispatch", create | {"deployment": "a b"}, 400, "invalid_argument",
             "twirp error unknown: deployment contains whitespace or control byte at position 1"),
            ("CreateDispatch", create | {"deployment": "a" * 65}, 400, "invalid_argument",
             "twirp error unknown: deployment exceeds 64 bytes"),
        ):  # fmt: skip
            answer = await twirp(lk_server, method, body)
            assert (answer.status_code, answer.json()["code"], answer.json()["msg"]) == (status, code, text)
        made = (await twirp(lk_server, "CreateDispatch", create | {"metadata": "m"})).json()
        assert made["id"].startswith("AD_") and made["metadata"] == "m"
        listed = (await twirp(lk_server, "ListDispatch", {"room": lk_room})).json()["agent_dispatches"]
        assert [(each["agent_name"], each["state"]["jobs"]) for each in listed] == [("", []), ("n", [])]
        none = await twirp(lk_server, "ListDispatch", {"room": lk_room, "dispatch_id": "nope"})
        assert none.json() == {"agent_dispatches": []}
        gone = await twirp(lk_server, "DeleteDispatch", {"room": lk_room, "dispatch_id": "nope"})
        assert (gone.status_code, gone.json()["msg"]) == (404, "twirp error unknown: dispatch ID not found")
        deleted = await twirp(lk_server, "DeleteDispatch", {"room": lk_room, "dispatch_id": made["id"]})
        assert deleted.json()["id"] == made["id"]
        token = raw_token(lk_server, video={"roomAdmin": True, "room": "another"})
        async with httpx.AsyncClient(timeout=LIMIT) as client:
            url = f"{lk_server.http_url}/twirp/livekit.AgentDispatchService/ListDispatch"
            refused = await client.post(url, json={"room": lk_room}, headers={"Authorization": f"Bearer {token}"})
        assert (refused.status_code, refused.json()["msg"]) == (401, "permissions denied")

    run(test)


def test_create_room_names_its_agents(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        async with service(lk_server) as lk:
            agents = [api.RoomAgentDispatch(agent_name=name, metadata=name * 2) for name in ("a", "b")]
            agents.append(api.RoomAgentDispatch(agent_name="c", deployment="not_good"))
            await lk.room.create_room(api.CreateRoomRequest(name=lk_room, agents=agents))
            dispatches = await lk.agent_dispatch.list_dispatch(lk_room)
            assert {d.agent_name: d.metadata for d in dispatches} == {"a": "aa", "b": "bb"}

    run(test)


# -- the worker protocol on the wire -----------------------------------------------------------------------------------


class RawWorker:
    """Speaks to `/agent` by itself, in protobuf or JSON."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def say(self, **message: Any) -> None:
        await self.socket.send_bytes(agent.WorkerMessage(**message).SerializeToString())

    async def hear(self, kind: str) -> Any:
        async with asyncio.timeout(LIMIT):
            while True:
                frame = await self.socket.receive()
                assert frame.type == aiohttp.WSMsgType.BINARY, frame
                message = agent.ServerMessage.FromString(frame.data)
                if message.WhichOneof("message") == kind:
                    return getattr(message, kind)

    async def register(self, **request: Any) -> str:
        await self.say(register=agent.RegisterWorkerRequest(**request))
        answer = await self.hear("register")
        assert answer.server_info.agent_protocol == 1
        return str(answer.worker_id)


def agent_url(server: Server) -> str:
    return f"{server.http_url}/agent?access_token={raw_token(server, video={'agent': True})}"


def test_the_door_is_for_workers(lk_server: Server) -> None:
    async def test() -> None:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{lk_server.http_url}/agent") as answer:
                assert answer.status == 404
            for query in ("", f"?access_token={raw_token(lk_server, video={'roomJoin': True, 'room': 'x'})}"):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await session.ws_connect(f"{lk_server.http_url}/agent{query}")
                assert refused.value.status == 401
            async with session.ws_connect(agent_url(lk_server)) as socket:
                worker = RawWorker(socket)
                assert (await worker.register()).startswith("AW_")
                await worker.say(ping=agent.WorkerPing(timestamp=5))
                pong = await worker.hear("pong")
                assert pong.last_timestamp == 5 and abs(pong.timestamp / 1000 - time.time()) < 60
            async with session.ws_connect(agent_url(lk_server)) as socket:
                await socket.send_str(json.dumps({"register": {"agentName": "json"}}))
                frame = await socket.receive(timeout=LIMIT)
                assert frame.type == aiohttp.WSMsgType.TEXT and "workerId" in json.loads(frame.data)["register"]
            async with session.ws_connect(agent_url(lk_server)) as socket:
                await socket.send_bytes(b"\xff" * 40)
                assert (await socket.receive(timeout=LIMIT)).type == aiohttp.WSMsgType.CLOSE

    run(test)


def test_who_refuses_is_passed_over_and_the_token_is_good_for_the_room(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(agent_url(lk_server)) as one,
            session.ws_connect(agent_url(lk_server)) as two,
            service(lk_server) as lk,
        ):
            workers = [RawWorker(one), RawWorker(two)]
            for worker in workers:
                await worker.register(agent_name="raw")
            asked = [asyncio.create_task(worker.hear("availability")) for worker in workers]
            await lk.room.create_room(room_api.CreateRoomRequest(name=lk_room, agents=[
                agent_dispatch.RoomAgentDispatch(agent_name="raw", metadata="m", attributes={"k": "v"})
            ]))  # fmt: skip
            await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            first = 0 if asked[0].done() else 1
            job = asked[first].result().job
            assert (job.room.name, job.metadata, dict(job.attributes)) == (lk_room, "m", {"k": "v"})
            await workers[first].say(availability=agent.AvailabilityResponse(job_id=job.id, available=False))
            other = workers[1 - first]
            again = (await asked[1 - first]).job
            assert again.id == job.id and again.state.worker_id != job.state.worker_id
            answer = agent.AvailabilityResponse(
                job_id=job.id, available=True, participant_identity="robot", participant_name="Robot"
            )
            await other.say(availability=answer)
            assignment = await other.hear("assignment")
            robot = Client(lk_server, "robot")
            await robot.connect(lk_room, token=assignment.token)
            info = await lk.room.get_participant(api.RoomParticipantIdentity(room=lk_room, identity="robot"))
            assert info.kind == models.ParticipantInfo.Kind.AGENT and info.permission.agent and info.name == "Robot"
            await robot.room.disconnect()
            assert (await other.hear("termination")).job_id == job.id
            (dispatch,) = await lk.agent_dispatch.list_dispatch(lk_room)
            (ended,) = dispatch.state.jobs
            assert (ended.state.status, ended.state.error) == (agent.JobStatus.JS_FAILED, "agent worker left the room")

    run(test)


def test_a_worker_may_simulate_a_job_for_itself(lk_server: Server) -> None:
    async def test() -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(agent_url(lk_server)) as socket:
            worker = RawWorker(socket)
            await worker.register(agent_name="raw")
            await worker.say(simulate_job=agent.SimulateJobRequest(room=models.Room(name="nowhere")))
            job = (await worker.hear("availability")).job
            assert (job.room.name, job.type) == ("nowhere", agent.JobType.JT_ROOM)

    run(test)
