"""RPC from the API: the server is an RPC peer over the reliable data channel. Pure.

| step              | who       | limit                                   |
|-------------------|-----------|-----------------------------------------|
| `rpc_request`     | server    | payload 15,360 bytes                    |
| `rpc_ack`         | recipient | 2 s, else 1501                          |
| `rpc_response`    | recipient | 10 s or as the caller said, else 1502   |

Source: livekit-surface 3.2. The answer is known by the request's id, which is also the caller's identity.
"""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import DecodeError
from livekit.protocol import models

ACK_TIMEOUT = 2.0
DEFAULT_RESPONSE_TIMEOUT_MS = 10_000
MAX_RESPONSE_TIMEOUT_MS = 600_000
MAX_PAYLOAD = 15360
MAX_PENDING = 100
"""Calls to one participant that may be open."""

TEXTS = {
    1400: "Method not supported at destination",
    1401: "Recipient not found",
    1402: "Request payload too large",
    1403: "RPC not supported by server",
    1404: "Unsupported RPC version",
    1500: "Application error in method handler",
    1501: "Connection timeout",
    1502: "Response timeout",
    1503: "Recipient disconnected",
    1504: "Response payload too large",
    1505: "Failed to send",
}


@dataclass(frozen=True, slots=True)
class RpcFailed:
    """`code` is one of TEXTS, or the application's own."""

    code: int
    message: str
    data: str = ""

    @classmethod
    def of(cls, code: int) -> RpcFailed:
        return cls(code, TEXTS[code])

    def __str__(self) -> str:
        tail = f": {self.data}" if self.data else ""
        return f"RpcError {self.code}: {self.message}{tail}"


@dataclass(frozen=True, slots=True)
class RpcAck:
    request_id: str


@dataclass(frozen=True, slots=True)
class RpcAnswer:
    request_id: str
    result: str | RpcFailed


def request_packet(request_id: str, method: str, payload: str, timeout_ms: int) -> bytes:
    """The packet that asks. Version 1: every SDK answers that in packets."""
    return models.DataPacket(
        kind=models.DataPacket.Kind.RELIABLE,
        participant_identity=request_id,
        rpc_request=models.RpcRequest(
            id=request_id, method=method, payload=payload, response_timeout_ms=timeout_ms, version=1
        ),
    ).SerializeToString()


def read_answer(payload: bytes) -> RpcAck | RpcAnswer | None:
    """What a packet says to an RPC caller; None for any other packet."""
    packet = models.DataPacket()
    try:
        packet.ParseFromString(payload)
    except DecodeError:
        return None
    if packet.HasField("rpc_ack"):
        return RpcAck(packet.rpc_ack.request_id)
    if not packet.HasField("rpc_response"):
        return None
    response = packet.rpc_response
    if response.HasField("error"):
        error = response.error
        return RpcAnswer(response.request_id, RpcFailed(error.code, error.message, error.data))
    if len(response.payload.encode()) > MAX_PAYLOAD:
        return RpcAnswer(response.request_id, RpcFailed.of(1504))
    return RpcAnswer(response.request_id, response.payload)
