"""What a client is told to do differently than it would: relaying, and codecs that its platform gets wrong.

Source: livekit-surface 2.10.
"""

from __future__ import annotations

from livekit.protocol import models

NEWER_SAFARI = (18, 3)
LINUX_FIREFOX = ("firefox", "firefox mobile")
XIAOMI = "xiaomi 2201117ti"


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


def _version(text: str) -> tuple[int, ...]:
    """Major and minor; what is no number ends it."""
    numbers = []
    for part in text.split(".")[:2]:
        if not (part.isascii() and part.isdigit() and len(part) < 6):
            break
        numbers.append(int(part))
    return tuple(numbers)
