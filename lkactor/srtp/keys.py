"""SRTP protection profiles and the keys that a DTLS handshake yields for them (RFC 5764 section 4.2, RFC 7714)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class SrtpProfile(Enum):
    """Value: (OpenSSL's name, key bytes, salt bytes)."""

    AEAD_AES_128_GCM = ("SRTP_AEAD_AES_128_GCM", 16, 12)
    AEAD_AES_256_GCM = ("SRTP_AEAD_AES_256_GCM", 32, 12)
    AES128_CM_SHA1_80 = ("SRTP_AES128_CM_SHA1_80", 16, 14)

    @property
    def openssl_name(self) -> str:
        return self.value[0]

    @property
    def key_size(self) -> int:
        return self.value[1]

    @property
    def salt_size(self) -> int:
        return self.value[2]

    @property
    def exported_size(self) -> int:
        """Bytes of keying material for both directions."""
        return 2 * (self.key_size + self.salt_size)


@dataclass(frozen=True, slots=True)
class SrtpKeys:
    """`local` protects what we send, `remote` what the peer sends. Never shown."""

    profile: SrtpProfile
    local_key: bytes = field(repr=False)
    local_salt: bytes = field(repr=False)
    remote_key: bytes = field(repr=False)
    remote_salt: bytes = field(repr=False)

    @classmethod
    def from_exported(cls, profile: SrtpProfile, material: bytes, *, client: bool) -> SrtpKeys:
        """The exporter's block: client key, server key, client salt, server salt."""
        key, salt = profile.key_size, profile.salt_size
        client_key, server_key = material[:key], material[key : 2 * key]
        client_salt, server_salt = material[2 * key : 2 * key + salt], material[2 * key + salt : 2 * (key + salt)]
        if client:
            return cls(profile, client_key, client_salt, server_key, server_salt)
        return cls(profile, server_key, server_salt, client_key, client_salt)
