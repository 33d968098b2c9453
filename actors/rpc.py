"""Calls from the API to a participant's RPC methods, open until answered or overdue."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import proxy

import trio

from actors.messages.participant import PerformRpc
from actors.messages.transport import SendData
from lkactor.room.rpc import (
    ACK_TIMEOUT,
    DEFAULT_RESPONSE_TIMEOUT_MS,
    MAX_PAYLOAD,
    MAX_PENDING,
    MAX_RESPONSE_TIMEOUT_MS,
    RpcAck,
    RpcFailed,
    read_answer,
    request_packet,
)

if TYPE_CHECKING:
    from actors.participant import ParticipantActor

ACK, RESPONSE = "rpc_ack ", "rpc_response "
"""Names of this desk's timers, followed by the request id."""


@dataclass(frozen=True, slots=True)
class _Call:
    reply: trio.MemorySendChannel[str | RpcFailed]


class RpcDesk:
    """The part of a participant actor that calls its client."""

    def __init__(self, participant: ParticipantActor) -> None:
        self._participant: ParticipantActor = proxy(participant)
        self._calls: dict[str, _Call] = {}

    def perform(self, call: PerformRpc) -> None:
        """Exactly one answer goes into `call.reply`, and nothing blocks on it."""
        if len(call.payload.encode()) > MAX_PAYLOAD:
            call.reply.send_nowait(RpcFailed.of(1402))
            return
        if len(self._calls) >= MAX_PENDING:
            call.reply.send_nowait(RpcFailed.of(1505))
            return
        timeout_ms = min(call.response_timeout_ms or DEFAULT_RESPONSE_TIMEOUT_MS, MAX_RESPONSE_TIMEOUT_MS)
        request_id = str(uuid.UUID(int=self._participant.services.rng.getrandbits(128), version=4))
        self._calls[request_id] = _Call(call.reply)
        packet = request_packet(request_id, call.method, call.payload, timeout_ms)
        self._participant.tell_data_port(SendData(((True, packet),)))
        self._participant.start_timer(ACK + request_id, ACK_TIMEOUT)
        self._participant.start_timer(RESPONSE + request_id, timeout_ms / 1000)

    def takes(self, payload: bytes) -> bool:
        """An answer to one of these calls goes no further."""
        if not self._calls:
            return False
        answer = read_answer(payload)
        if answer is None or answer.request_id not in self._calls:
            return False
        if isinstance(answer, RpcAck):
            self._participant.cancel_timer(ACK + answer.request_id)
        else:
            self._finish(answer.request_id, answer.result)
        return True

    def on_timer(self, what: str) -> bool:
        """True if the timer is one of this desk's."""
        for prefix, code in ((ACK, 1501), (RESPONSE, 1502)):
            if what.startswith(prefix):
                self._finish(what.removeprefix(prefix), RpcFailed.of(code))
                return True
        return False

    def close(self) -> None:
        """The participant is gone."""
        for request_id in list(self._calls):
            self._finish(request_id, RpcFailed.of(1503))

    def _finish(self, request_id: str, result: str | RpcFailed) -> None:
        call = self._calls.pop(request_id, None)
        if call is not None:
            self._participant.cancel_timer(ACK + request_id)
            self._participant.cancel_timer(RESPONSE + request_id)
            call.reply.send_nowait(result)
