"""Our certificate: self-signed ECDSA P-256, one for the process. Its fingerprint in the SDP is what vouches for it."""

from __future__ import annotations

import datetime
import functools

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
LIFETIME = datetime.timedelta(days=30)
EPOCH = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
"""Peers check the fingerprint, not the dates: fixed ones leave the clock out of it."""


class Certificate:
    """Key, certificate and the OpenSSL contexts made of them."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self._certificate = certificate
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

    @functools.cached_property
    def context(self) -> SSL.Context:
        """Shared by all handshakes, in both roles."""
        context = SSL.Context(SSL.DTLS_METHOD)
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
        context.use_certificate(self._certificate)
        context.use_privatekey(self._key)
        context.set_cipher_list(CIPHERS)
        profiles = ":".join(profile.openssl_name for profile in SrtpProfile)
        context.set_tlsext_use_srtp(profiles.encode())
        context.set_options(SSL.OP_NO_QUERY_MTU)
        return context


def fingerprint_of(certificate: x509.Certificate, algorithm: str) -> Fingerprint | None:
    """The peer certificate's digest; None for an algorithm that we do not trust."""
    known: dict[str, hashes.HashAlgorithm] = {
        "sha-256": hashes.SHA256(),
        "sha-384": hashes.SHA384(),
        "sha-512": hashes.SHA512(),
    }
    if algorithm not in known:
        return None
    return Fingerprint(algorithm, certificate.fingerprint(known[algorithm]).hex(":").upper())
