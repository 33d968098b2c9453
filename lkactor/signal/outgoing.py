"""One response on its way to clients: encoded once for each form in which anybody wants it.

What concerns a whole room is one object, handed to everyone in it: the first client of a kind pays for the encoding
(livekit-surface 1.7: protobuf or JSON, by what the client speaks; compressed or not, by what was agreed).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from livekit.protocol import models, rtc

from lkactor.signal import websocket
from lkactor.signal.codec import encode_response
from lkactor.signal.responses import update


class Outgoing:
    """`message` is not changed any more."""

    __slots__ = ("_binary", "_frames", "_text", "kind", "message")

    def __init__(self, message: rtc.SignalResponse) -> None:
        self.message = message
        self.kind: str = message.WhichOneof("message") or ""
        self._binary: bytes | str | None = None
        self._text: bytes | str | None = None
        self._frames: dict[tuple[bool, bool], bytes] = {}

    def encoded(self, *, text: bool) -> bytes | str:
        """Protobuf, or JSON for `text`."""
        known = self._text if text else self._binary
        if known is None:
            known = encode_response(self.message, text=text)
            if text:
                self._text = known
            else:
                self._binary = known
        return known

    def frame(self, *, text: bool, deflate: bool) -> bytes:
        """As a WebSocket frame."""
        known = self._frames.get((text, deflate))
        if known is None:
            known = self._frames[text, deflate] = websocket.message(self.encoded(text=text), deflate=deflate)
        return known


class SharedUpdate:
    """What has become of participants, for everyone in their room: one message for older clients, one for newer ones.

    Newer clients take a new sid of the same identity for what it is, and are not told that the old one has gone
    (livekit-surface 2.3).
    """

    __slots__ = ("_infos", "_newer", "_older", "_told")

    def __init__(self, infos: Sequence[models.ParticipantInfo]) -> None:
        replaced = models.DisconnectReason.DUPLICATE_IDENTITY
        self._infos = tuple(infos)
        self._told = tuple(info for info in infos if info.disconnect_reason != replaced)
        self._older: Outgoing | None = None
        self._newer: Outgoing | None = None

    def infos(self, *, newer: bool) -> tuple[models.ParticipantInfo, ...]:
        return self._told if newer else self._infos

    def outgoing(self, *, newer: bool) -> Outgoing | None:
        """None: there is nothing to tell."""
        if newer and len(self._told) != len(self._infos):
            if self._newer is None and self._told:
                self._newer = Outgoing(update(self._told))
            return self._newer
        if self._older is None and self._infos:
            self._older = Outgoing(update(self._infos))
        return self._older


class SharedSelections:
    """Messages that depend on the receiver, made once for all receivers that are to have the same one."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made: dict[Hashable, Outgoing] = {}

    def outgoing(self, selection: Hashable, make: Callable[[], rtc.SignalResponse]) -> Outgoing:
        """`selection` says what is in the message that `make` would make."""
        known = self._made.get(selection)
        if known is None:
            known = self._made[selection] = Outgoing(make())
        return known
