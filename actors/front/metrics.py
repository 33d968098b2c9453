"""Prometheus asks: what is, beside what was counted. A port of its own, with a password if one is configured."""

from __future__ import annotations

import base64
import secrets

from actors.front.types import Receive, Request, Response, Scope, Send
from actors.journal import JournalPort
from actors.kernel import ActorRef, AskTimeout, MailboxFull
from actors.messages.rooms import ListRooms, RoomsMessage
from actors.services import Services
from lkactor.metrics import Traffic, Webhooks

ASK_TIMEOUT = 5.0
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class MetricsFront:
    """An ASGI application that answers every path, as the reference's."""

    def __init__(self, services: Services, rooms: ActorRef[RoomsMessage]) -> None:
        self._services = services
        self._rooms = rooms

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while True:
                event = await receive()
                await send({"type": f"{event['type']}.complete"})
                if event["type"] == "lifespan.shutdown":
                    return
        if scope["type"] != "http":
            await receive()
            await Response(404).deny(send)
            return
        await (await self._answer(Request.of(scope))).send(send)

    async def _answer(self, request: Request) -> Response:
        if not self._known(request.headers.get("authorization", "")):
            return Response(401, b"Unauthorized", headers=(("www-authenticate", 'Basic realm="prometheus"'),))
        try:
            rooms = await self._rooms.ask(ListRooms(()), timeout=ASK_TIMEOUT)
        except (AskTimeout, MailboxFull):
            return Response(503, b"the rooms do not answer")
        ports = self._services.ports
        ports.collect()
        self._services.metrics.loop(self._services.loop.longest(), self._services.loop.collecting)
        text = self._services.metrics.exposition(
            (room.info for room in rooms),
            Traffic(ports.packets_in, ports.bytes_in, ports.packets_out, ports.bytes_out),
            ports.counters,
            webhooks_of(self._services.journal),
        )
        return Response(200, text, CONTENT_TYPE)

    def _known(self, authorization: str) -> bool:
        config = self._services.config.prometheus
        if not config.username:
            return True
        wanted = base64.b64encode(f"{config.username}:{config.password}".encode()).decode()
        return secrets.compare_digest(authorization.encode(), f"Basic {wanted}".encode())


def webhooks_of(journal: JournalPort) -> Webhooks:
    """All receivers together."""
    counts = [status.counters for status in journal.statuses()]

    def total(*reasons: str) -> int:
        return sum(count.get(reason, 0) for count in counts for reason in reasons)

    return Webhooks(
        sent=total("webhook.sent"),
        failed=total("webhook.unreachable", "webhook.failed", "webhook.refused"),
        dropped=total("webhook.expired") + journal.counters.get("journal.overflow", 0),
        queued=journal.queue_length,
    )
