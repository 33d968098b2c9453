"""A livekit-agents worker as a process of its own environment: it wants an older `livekit` than our tests do."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.interop import Server

FOLDER = Path(__file__).resolve().parent.parent / "interop" / "agents"
PYTHON = FOLDER / ".venv" / "bin" / "python"


class AgentWorker:
    """A running worker."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def kill(self) -> None:
        """It and its agents, without a farewell."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(20)

    def stop(self) -> None:
        if self._process.poll() is None:
            self.kill()


@contextmanager
def agent_worker(server: Server, label: str, *, name: str = "", kind: str = "ROOM") -> Iterator[AgentWorker]:
    """Until the block is left; entered when the server has registered it."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("LIVEKIT", "PYTHON"))}
    environment |= {
        "LIVEKIT_URL": server.url, "LIVEKIT_API_KEY": server.api_key, "LIVEKIT_API_SECRET": server.api_secret,
        "AGENT_NAME": name, "AGENT_TYPE": kind, "AGENT_LABEL": label,
    }  # fmt: skip
    before = registered(server)
    process = subprocess.Popen(
        [str(PYTHON), str(FOLDER / "worker.py"), "start"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    worker = AgentWorker(process)
    try:
        server.wait_for(lambda _: registered(server) > before or process.poll() is not None, 60.0)  # type: ignore[attr-defined]
        assert process.poll() is None, f"the worker ended with {process.returncode}"
        yield worker
    finally:
        worker.stop()


def registered(server: Server) -> int:
    """How many workers have ever registered."""
    entries = server.events("")  # type: ignore[attr-defined]
    return sum(entry.event == "worker.registered" for entry in entries)
