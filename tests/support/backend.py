"""A webhook back end as users write one: an HTTP server on a port of its own that can be down and come back."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from google.protobuf.json_format import MessageToDict
from livekit.api import TokenVerifier, WebhookReceiver


class Backend:
    """Verifies with livekit-api's own receiver. `events` are those that it accepted, `requests` all headers."""

    def __init__(self, api_key: str, api_secret: str) -> None:
        self._receiver = WebhookReceiver(TokenVerifier(api_key, api_secret))
        self._server: http.server.ThreadingHTTPServer | None = None
        self._changed = threading.Condition()
        self.events: list[Any] = []
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.errors: list[str] = []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def start(self) -> None:
        backend = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = backend.take(dict(self.headers), body)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Backend:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def take(self, headers: dict[str, str], body: bytes) -> int:
        with self._changed:
            try:
                event = self._receiver.receive(body.decode(), headers["Authorization"])
            except Exception as error:  # noqa: BLE001 - whatever the official receiver does not like fails the test
                self.errors.append(repr(error))
                return 401
            self.events.append(event)
            self.bodies.append(body)
            self.headers.append(headers)
            self._changed.notify_all()
            return 200

    def wait_for(self, condition: Callable[[list[Any]], bool], what: str, limit: float = 30.0) -> None:
        """Until `condition(events)`."""
        deadline = time.monotonic() + limit
        with self._changed:
            while not condition(self.events):
                left = deadline - time.monotonic()
                if left <= 0 or self.errors:
                    raise AssertionError(f"no {what}; errors {self.errors}; got {self.story()}")
                self._changed.wait(left)

    def story(self, room: str | None = None) -> list[tuple[str, str, str]]:
        """(event, identity, track name), in the order of arrival."""
        return [
            (event.event, event.participant.identity, event.track.name)
            for event in self.events
            if room is None or event.room.name == room
        ]

    def tree(self, index: int) -> dict[str, Any]:
        tree: dict[str, Any] = MessageToDict(self.events[index])
        return tree
