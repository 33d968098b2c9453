"""Takes secrets out of text that is on its way into a log. The last line: what writes a line has left them out before.

Texts that are not ours need it: a traceback repeats what a peer sent, an error of a library what it was given. Sizes
are a peer's, too, so what is long is cut in the middle.

| taken out | recognised by |
|---|---|
| access tokens, whole or cut | the form of a JWT |
| ICE passwords | `ice-pwd` of SDP |
| passwords, credentials, tokens of other messages | a name with one of these words, and what it is set to |
| private keys | PEM's armour |
| the operator's secrets | their values |
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from lkactor.config import Config

MAX_TEXT = 16 * 1024
HIDDEN = "<secret>"
LEAST = 12
"""Shorter values are words, as the development mode's "secret": public, and part of other words."""
_TOKEN = re.compile(r"eyJ[\w-]{8,}(?:\.[\w-]*){0,2}")
_SDP = re.compile(r"(ice-pwd:)[\w+/]+")
_NAMED = re.compile(
    r"((?:password|passwd|pwd|credential|secret|access_token|authorization|bearer|turn_password)"
    r"[\"']?\s*[:=]\s*(?:b?\\?[\"'])?(?:Bearer\s+)?)(?!Bearer\s)[^\s\"',;&<>{}()\\]+",
    re.IGNORECASE,
)
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without them, at most about MAX_TEXT characters."""
    if len(text) > MAX_TEXT:
        half = MAX_TEXT // 2
        # A token that is cut in two is still recognised on the left; on the right its rest says nothing.
        text = f"{text[:half]} ... {len(text) - 2 * half} characters ... {_headless(text[-half:])}"
    for secret in secrets:
        if len(secret) >= LEAST:
            text = text.replace(secret, HIDDEN)
    if ":" not in text and "=" not in text and "eyJ" not in text and "-----" not in text:
        return text  # None of the forms below can be there.
    text = _PEM.sub(HIDDEN, text)
    text = _TOKEN.sub(HIDDEN, text)
    text = _SDP.sub(rf"\1{HIDDEN}", text)
    return _NAMED.sub(rf"\1{HIDDEN}", text)


def secrets_of(config: Config) -> Iterator[str]:
    """All that an operator has configured and nobody else may see."""
    yield from config.keys.values()
    yield config.prometheus.password
    for server in config.rtc.turn_servers:
        yield server.credential
        yield server.secret


def _headless(text: str) -> str:
    """Without its first word, which may be half of a secret."""
    found = re.search(r"[\s\"',;]", text)
    return text[found.start() :] if found else ""
