"""Our certificate: self-signed ECDSA P-256, one for the process. Its fingerprint in the SDP is what vouches for it."""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from lkactor.fingerprint import Fingerprint
from lkactor.srtp import SrtpProfile

CIPHERS = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:"
    b"ECDHE-RSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    b"ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA"
)
DTLS_1_2 = 0xFEFD
"""On the wire; pyOpenSSL has no name for it. Older ones are refused (RFC 8827 section 6.5), newer ones may come."""
ALGORITHMS: dict[str, hashes.HashAlgorithm] = {
    "sha-512": hashes.SHA512(),
    "sha-384": hashes.SHA384(),
    "sha-256": hashes.SHA256(),
}
"""Of fingerprints, the strongest first. Others, SHA-1 above all, are not trusted."""
PREFERRED = tuple(SrtpProfile)
LIFETIME = datetime.timedelta(days=30)
EPOCH = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
"""Peers check the fingerprint, not the dates: fixed ones leave the clock out of it."""


class Certificate:
    """Key, certificate and the OpenSSL contexts made of them."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self._certificate = certificate
        self._contexts: dict[tuple[SrtpProfile, ...], SSL.Context] = {}
        digest = certificate.fingerprint(hashes.SHA256())
        self.fingerprint = Fingerprint("sha-256", digest.hex(":").upper())

    @classmethod
    def generate(cls) -> Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "WebRTC")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(EPOCH)
            .not_valid_after(EPOCH + LIFETIME * 365)
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate)

    def context(self, profiles: tuple[SrtpProfile, ...] = PREFERRED) -> SSL.Context:
        """Shared by all handshakes, in both roles. `profiles`: what we offer or accept, the most wanted first."""
        known = self._contexts.get(profiles)
        if known is not None:
            return known
        context = SSL.Context(SSL.DTLS_METHOD)
        context.set_min_proto_version(DTLS_1_2)
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
        context.use_certificate(self._certificate)
        context.use_privatekey(self._key)
        context.set_cipher_list(CIPHERS)
        context.set_tlsext_use_srtp(":".join(profile.openssl_name for profile in profiles).encode())
        # Nobody resumes a WebRTC handshake: OpenSSL would keep 20,000 sessions for it.
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        # A renegotiation would put another certificate behind a fingerprint that was checked once.
        context.set_options(
            SSL.OP_NO_QUERY_MTU | SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE
        )
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # Most connections are silent: 17 kB of each.
        self._contexts[profiles] = context
        return context


def fingerprint_of(certificate: x509.Certificate, algorithm: str) -> Fingerprint:
    """The peer certificate's digest by one of ALGORITHMS. Raises KeyError for another."""
    return Fingerprint(algorithm, certificate.fingerprint(ALGORITHMS[algorithm]).hex(":").upper())
