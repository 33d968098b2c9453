"""A stock livekit-agents worker without any model. Its agent answers a data message of topic "ask" with what it is.

Environment: LIVEKIT_URL, LIVEKIT_API_KEY, LIVEKIT_API_SECRET, AGENT_NAME, AGENT_TYPE (ROOM or PUBLISHER), AGENT_LABEL.
"""

from __future__ import annotations

import asyncio
import json
import os

from livekit import rtc
from livekit.agents import JobContext, JobExecutorType, JobRequest, WorkerOptions, WorkerType, cli

LABEL = os.environ.get("AGENT_LABEL", "worker")


async def entrypoint(context: JobContext) -> None:
    await context.connect()
    local = context.room.local_participant
    tasks: set[asyncio.Task[None]] = set()

    def answer(packet: rtc.DataPacket) -> None:
        if packet.topic != "ask" or packet.participant is None:
            return
        told = json.dumps({"label": LABEL, "job": context.job.id, "metadata": context.job.metadata})
        identities = [packet.participant.identity]
        task = asyncio.create_task(local.publish_data(told, topic="told", destination_identities=identities))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    context.room.on("data_received", answer)


async def accept(request: JobRequest) -> None:
    await request.accept(name=f"Agent {LABEL}", identity=f"agent-{LABEL}-{request.id}", attributes={"label": LABEL})


if __name__ == "__main__":
    cli.run_app(
        WorkerOptions(
            entrypoint_fnc=entrypoint,
            request_fnc=accept,
            load_fnc=lambda: 0.1,
            job_executor_type=JobExecutorType.THREAD,
            num_idle_processes=1,
            agent_name=os.environ.get("AGENT_NAME", ""),
            worker_type=WorkerType[os.environ.get("AGENT_TYPE", "ROOM")],
            host="127.0.0.1",
            port=0,
        )
    )
