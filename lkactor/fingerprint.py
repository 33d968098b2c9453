"""The name of a certificate that both the description and the handshake use (RFC 8122 section 5)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """`algorithm` in lower case ("sha-256"), `value` as colon-separated upper-case hex ("AA:BB:..")."""

    algorithm: str
    value: str
