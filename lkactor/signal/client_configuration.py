"""What a client is told to do differently than it would: relaying, and codecs that its platform gets wrong; and what
it is not told, for it would fail on it.

Source: livekit-surface 2.10.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from livekit.protocol import models

NEWER_SAFARI = (18, 3)
LINUX_FIREFOX = ("firefox", "firefox mobile")
XIAOMI = "xiaomi 2201117ti"
RUST_PROTOCOL = 10
"""The Rust SDK before it cannot decode responses that it does not know."""
JS_RECONNECT = (1, 6, 3)
"""livekit-client before it cannot take a ReconnectResponse."""
Sdk = models.ClientInfo.SDK


@dataclass(frozen=True, slots=True)
class ClientCodecs:
    """Those of a room's codecs that this client may send, and those that it is sent."""

    publish: tuple[models.Codec, ...]
    subscribe: tuple[models.Codec, ...]


def client_codecs(client: models.ClientInfo, enabled: Iterable[models.Codec]) -> ClientCodecs:
    """Older clients do not read `disabled_codecs`: what they are told not to use is not negotiated with them."""
    configuration = client_configuration(client, force_relay=False) or models.ClientConfiguration()
    off = {codec.mime.lower() for codec in configuration.disabled_codecs.codecs}
    never_sent = {codec.mime.lower() for codec in configuration.disabled_codecs.publish}
    subscribe = tuple(codec for codec in enabled if codec.mime.lower() not in off)
    return ClientCodecs(tuple(codec for codec in subscribe if codec.mime.lower() not in never_sent), subscribe)


def client_configuration(client: models.ClientInfo, *, force_relay: bool) -> models.ClientConfiguration | None:
    """None: nothing to say. Without `force_relay` the client's own wish to relay stays its own (UNSET)."""
    configuration = models.ClientConfiguration()
    browser, system = client.browser.lower(), client.os.lower()
    if browser == "safari":
        configuration.disabled_codecs.codecs.add(mime="video/AV1")
        if _version(client.browser_version) > NEWER_SAFARI:
            configuration.disabled_codecs.publish.add(mime="video/VP9")
    phone = system == "android" and client.device_model.lower() == XIAOMI
    if phone or (browser in LINUX_FIREFOX and system in ("linux", "android")):
        configuration.disabled_codecs.publish.add(mime="video/H264")
    if force_relay:
        configuration.force_relay = models.ClientConfigSetting.ENABLED
    return configuration if configuration.ByteSize() else None


def understands(client: models.ClientInfo, response: str) -> bool:
    """Whether it can take a SignalResponse of this kind."""
    if response in ("request_response", "track_subscribed"):
        return client.sdk != Sdk.RUST or client.protocol >= RUST_PROTOCOL
    if response == "reconnect":
        return client.sdk != Sdk.JS or _version(client.version, 3) >= JS_RECONNECT
    return True


def _version(text: str, parts: int = 2) -> tuple[int, ...]:
    """Major and minor, or more; what is no number ends it."""
    numbers = []
    for part in text.split(".")[:parts]:
        if not (part.isascii() and part.isdigit() and len(part) < 6):
            break
        numbers.append(int(part))
    return tuple(numbers)
