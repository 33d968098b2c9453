"""The ICE servers that clients are told of: none of ours by default, so nothing needs the internet.

Source: livekit-surface 2.10. TURN of `rtc.turn_servers` with a `secret` gets time-limited credentials: the user name is
"<expiry>:<participant sid>", the credential base64 of its HMAC-SHA1.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from livekit.protocol import rtc

from lkactor.config import Config


def ice_servers(config: Config, participant_sid: str, now_unix: float) -> list[rtc.ICEServer]:
    servers = []
    for turn in config.rtc.turn_servers:
        scheme, transport = {"tls": ("turns", "tcp"), "udp": ("turn", "udp")}.get(turn.protocol, ("turn", "tcp"))
        username, credential = turn.username, turn.credential
        if turn.secret:
            username = f"{int(now_unix) + turn.ttl}:{participant_sid}"
            digest = hmac.digest(turn.secret.encode(), username.encode(), hashlib.sha1)
            credential = base64.b64encode(digest).decode()
        url = f"{scheme}:{turn.host}:{turn.port}?transport={transport}"
        servers.append(rtc.ICEServer(urls=[url], username=username, credential=credential))
    stun = [url if url.startswith("stun:") else f"stun:{url}" for url in config.rtc.stun_servers]
    if stun:
        servers.append(rtc.ICEServer(urls=stun))
    return servers
