"""`/agent`: the WebSocket of an agent worker (livekit-surface 11)."""

from __future__ import annotations

import trio
from livekit.protocol import agent

from actors.front.cors import with_cors
from actors.front.intake import claims_of, refusal
from actors.front.types import ClosedByPeer, Receive, Request, Response, Send, WebSocket
from actors.kernel import ActorDead, ActorRef, AskTimeout, MailboxFull
from actors.messages.agents import AgentsMessage, ConnectWorker, WorkerGone, WorkerSaid
from actors.services import Services
from lkactor.auth import AuthError
from lkactor.errors import ProtocolViolation
from lkactor.signal.codec import decode, encode_response

PATH = "/agent"
QUEUE = 1000
"""Messages that may wait for a worker; one that does not read them is cut off."""
ASK_TIMEOUT = 5.0
CLOSE_TIMEOUT = 0.5


class WorkerConnection:
    """Implements `WorkerSink`; runs one WebSocket until either side is done."""

    def __init__(self, websocket: WebSocket, limit: int) -> None:
        self._websocket = websocket
        self._limit = limit
        self._send, self._receive = trio.open_memory_channel[agent.ServerMessage](QUEUE)
        self._text = False

    def send(self, message: agent.ServerMessage) -> None:
        try:
            self._send.send_nowait(message)
        except trio.WouldBlock:
            self.close()
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            pass

    def close(self) -> None:
        self._send.close()

    async def run(self, agents: ActorRef[AgentsMessage], worker_id: str) -> None:
        await self._websocket.accept()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, nursery.cancel_scope)
            nursery.start_soon(self._read, agents, worker_id, nursery.cancel_scope)
        with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
            await self._websocket.close(1000)
            await self._websocket.drain()

    async def _write(self, scope: trio.CancelScope) -> None:
        try:
            async for message in self._receive:
                await self._websocket.send(encode_response(message, text=self._text))
        except ClosedByPeer:
            pass
        scope.cancel()

    async def _read(self, agents: ActorRef[AgentsMessage], worker_id: str, scope: trio.CancelScope) -> None:
        try:
            while True:
                frame = await self._websocket.receive()
                if len(frame) > self._limit:
                    await self._websocket.close(1009)
                    break
                self._text = isinstance(frame, str)
                agents.tell(WorkerSaid(worker_id, decode(frame, agent.WorkerMessage(), "agents.malformed")))
        except (ClosedByPeer, ProtocolViolation, ActorDead, MailboxFull):
            pass
        scope.cancel()


class AgentFront:
    """Handler of the upgrade."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def serve(self, request: Request, receive: Receive, send: Send) -> None:
        try:
            claims = claims_of(request, self._services)
        except AuthError as error:
            await self._deny(request, receive, send, 401, refusal(request, error))
            return
        if claims is None or claims.video is None or not claims.video.agent:
            await self._deny(request, receive, send, 401, "no permissions to access the room")
            return
        agents = self._services.agents
        limit = self._services.config.limit.agent_signal_message_size_limit
        connection = WorkerConnection(WebSocket(receive, send), limit)
        try:
            if agents is None:
                raise ActorDead("/agents")
            worker_id: str = await agents.ask(ConnectWorker(claims.api_key, connection), timeout=ASK_TIMEOUT)
        except (ActorDead, AskTimeout, MailboxFull):
            await self._deny(request, receive, send, 503, "agents are not available")
            return
        try:
            await connection.run(agents, worker_id)
        finally:
            try:
                agents.tell(WorkerGone(worker_id))
            except (ActorDead, MailboxFull):
                self._services.ports.counters.count("agents.unreachable")

    async def _deny(self, request: Request, receive: Receive, send: Send, status: int, text: str) -> None:
        await receive()
        await with_cors(request, Response(status, text.encode())).deny(send)
