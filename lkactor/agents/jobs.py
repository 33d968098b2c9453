"""What a job is made of, and the token that its agent joins with (livekit-surface 4, 11)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from livekit.protocol import agent, models

from lkactor.auth import issue_token

AGENT_NAME_ATTRIBUTE = "lk.agent_name"
TOKEN_LIFE = 3600.0
MAX_DEPLOYMENT = 64
ENDED = (agent.JobStatus.JS_SUCCESS, agent.JobStatus.JS_FAILED)


class JobReason(Enum):
    """Why a job is ended from outside."""

    TERMINATION_REQUESTED = auto()
    AGENT_LEFT_ROOM = auto()


@dataclass(frozen=True, slots=True)
class JobOrder:
    """What a room wants done. `owner` is told of every change, by name."""

    owner: str
    dispatch_id: str
    type: int
    room: models.Room
    participant: models.ParticipantInfo | None
    agent_name: str
    metadata: str
    deployment: str
    attributes: Mapping[str, str]
    attempt: int = 0

    def job(self, id: str, namespace: str) -> agent.Job:
        return agent.Job(
            id=id,
            dispatch_id=self.dispatch_id,
            type=self.type,  # type: ignore[arg-type]
            room=self.room,
            participant=self.participant,
            namespace=namespace,
            agent_name=self.agent_name,
            metadata=self.metadata,
            deployment=self.deployment,
            attributes=self.attributes,
        )


def job_token(
    key: str,
    secret: str,
    job: agent.Job,
    answer: agent.AvailabilityResponse,
    permissions: models.ParticipantPermission,
    now_unix: float,
) -> str:
    """For the agent that a worker starts: one hour, kind agent, the worker's permissions."""
    video = {
        "room_join": True,
        "agent": True,
        "room": job.room.name,
        "can_subscribe": permissions.can_subscribe,
        "can_publish": permissions.can_publish,
        "can_publish_data": permissions.can_publish_data,
        "hidden": permissions.hidden,
        "can_update_own_metadata": permissions.can_update_metadata,
        "can_subscribe_metrics": permissions.can_subscribe_metrics,
    }
    return issue_token(
        key,
        secret,
        identity=answer.participant_identity,
        name=answer.participant_name,
        metadata=answer.participant_metadata,
        attributes={**answer.participant_attributes, AGENT_NAME_ATTRIBUTE: job.agent_name},
        kind="agent",
        video=video,
        ttl=TOKEN_LIFE,
        now_unix=now_unix,
    )


def check_deployment(deployment: str) -> str:
    """What is wrong with it, in the reference's words; "" if nothing is."""
    encoded = deployment.encode()
    if len(encoded) > MAX_DEPLOYMENT:
        return f"deployment exceeds {MAX_DEPLOYMENT} bytes"
    for position, byte in enumerate(encoded):
        if byte == ord("_"):
            return "deployment contains reserved character '_'"
        if byte <= 0x20 or byte == 0x7F:
            return f"deployment contains whitespace or control byte at position {position}"
    return ""
