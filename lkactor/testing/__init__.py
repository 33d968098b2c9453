"""A real server, with real media, inside a test's own process.

    with LkServer() as server:
        url, token = server.url, server.token(identity="alice", room="demo")

It runs on a thread with a Trio loop of its own, on loopback, on ports that the system picks, so sync, asyncio and Trio
tests use it alike. The pytest plugin gives it as the fixture `lk_server`.
"""

from lkactor.testing.server import LeakError, LkServer

__all__ = ["LeakError", "LkServer"]
