"""AgentDispatchService: what each method takes and what is checked (livekit-surface 3.3). Pure."""

from __future__ import annotations

from google.protobuf.message import Message
from livekit.protocol import agent_dispatch

from lkactor.agents import check_deployment
from lkactor.api.twirp import Method, TwirpError
from lkactor.config import LimitConfig

METHODS = {
    "CreateDispatch": Method(agent_dispatch.CreateAgentDispatchRequest, "admin"),
    "DeleteDispatch": Method(agent_dispatch.DeleteAgentDispatchRequest, "admin"),
    "ListDispatch": Method(agent_dispatch.ListAgentDispatchRequest, "admin"),
}
NO_ROOM = TwirpError("unavailable", "twirp error unknown: no response from servers")
"""The reference asks whoever has the room; nobody has one that does not exist."""
NO_DISPATCH = TwirpError("not_found", "twirp error unknown: dispatch ID not found")


def check_limits(request: Message, limits: LimitConfig) -> None:
    """Raises TwirpError("invalid_argument")."""
    if not isinstance(request, agent_dispatch.CreateAgentDispatchRequest):
        return
    problem = check_deployment(request.deployment)
    if problem:
        raise TwirpError("invalid_argument", f"twirp error unknown: {problem}")
    if len(request.metadata.encode()) > limits.max_metadata_size:
        raise TwirpError("invalid_argument", f"metadata size exceeds limits: max length {limits.max_metadata_size}")
    size = sum(len(key.encode()) + len(value.encode()) for key, value in request.attributes.items())
    if size > limits.max_attributes_size:
        raise TwirpError("invalid_argument", f"attributes size exceeds limits: max length {limits.max_attributes_size}")
