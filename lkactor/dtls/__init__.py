"""DTLS with SRTP keys. The only package that imports OpenSSL."""

from lkactor.dtls.certificate import Certificate
from lkactor.dtls.endpoint import DtlsClosed, DtlsConnected, DtlsData, DtlsEndpoint, DtlsEvent
from lkactor.fingerprint import Fingerprint

__all__ = ["Certificate", "DtlsClosed", "DtlsConnected", "DtlsData", "DtlsEndpoint", "DtlsEvent", "Fingerprint"]
