"""A real server, with real media, inside a test's own process.

    with LkServer() as server:
        url, token = server.url, server.token(identity="alice", room="demo")

It runs on a thread with a Trio loop of its own, on loopback, on ports that the system picks, so sync, asyncio and Trio
tests use it alike. The pytest plugin gives it as the fixture `lk_server`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lkactor.testing.server import LeakError, LkServer

__all__ = ["LeakError", "LkServer"]


def __getattr__(name: str) -> Any:
    """Loaded on first use: pytest imports this package in every run, tests of ours or not."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lkactor.testing import server

    return getattr(server, name)
