"""What the rows of one subscriber write to: its keys and its path, both replaceable by one write."""

from __future__ import annotations

from collections.abc import Sequence

from actors.net import Path, UdpPath
from lkactor.ice import Consent
from lkactor.plane import Plane
from lkactor.srtp import SrtpReceiver, SrtpSender


class TransportEgress:
    """Implements `lkactor.sfu.Egress`. `ready` is true while there are both keys and a path."""

    __slots__ = ("_consent", "_lock", "cell", "ingress", "path", "ready", "srtp")

    def __init__(self, plane: Plane) -> None:
        self.cell = plane.egress()
        """The same for the forwarding plane."""
        self.ingress = plane.ingress()
        """The way back: where the plane reads what this peer sends."""
        self._lock = plane.lock
        self.ready = False
        self.srtp: SrtpSender | None = None
        self.path: Path | None = None
        self._consent: Consent | None = None

    def send_run(self, segments: Sequence[memoryview]) -> None:
        if self.path is not None:
            self.path.send_run(segments)

    def send_rtcp(self, packet: bytes) -> None:
        """`packet` is a whole, unprotected compound of at most 1352 bytes."""
        if self.path is not None and self.srtp is not None:
            with self._lock:
                protected = self.srtp.protect_rtcp(packet)
            self.path.send(protected)

    def set_keys(self, srtp: SrtpSender, opener: SrtpReceiver) -> None:
        self.srtp = srtp
        self.cell.set_keys(srtp)
        self.ingress.set_keys(opener)
        self._set_ready(self.path is not None)

    def set_path(self, path: Path | None) -> None:
        self.path = path
        if isinstance(path, UdpPath):
            self.cell.set_path(path.cell, path.packed)
        else:
            self.cell.set_path(None, b"")
        self._set_ready(path is not None and self.srtp is not None)

    def set_consent(self, consent: Consent | None) -> None:
        """The plane may answer such checks of the path."""
        if consent == self._consent:
            return
        self._consent = consent
        if consent is not None and isinstance(self.path, UdpPath) and self.path.address == consent.address:
            self.ingress.set_consent(self.path.cell, self.path.packed, consent)
        else:
            self.ingress.set_consent(None, b"", None)

    def revoke(self) -> None:
        """From here on every row of this transport is dead."""
        self._set_ready(False)
        self.set_consent(None)
        self.path = None
        self.ingress.on_news = None
        self.ingress.set_keys(None)

    def _set_ready(self, ready: bool) -> None:
        self.ready = ready
        self.cell.set_ready(ready)
