"""The ICE servers that clients are told of: none of others by default, so nothing needs the internet.

Source: livekit-surface 2.10. The built-in TURN server first, with credentials of its own kind
(`lkactor.turn.credentials`). TURN of `rtc.turn_servers` with a `secret` gets time-limited credentials: the user name is
"<expiry>:<participant sid>", the credential base64 of its HMAC-SHA1.

The reference always announces `turns:` on 443. Here `turn.tls_port` comes first, so that a server which listens on 5349
itself is found; 443 is there too, for the load balancer or port mapping which that port then assumes. With
`external_tls` only 443: what listens on `tls_port` speaks no TLS.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence

from livekit.protocol import rtc

from lkactor.config import Config
from lkactor.ice.candidate import Candidate
from lkactor.turn.credentials import issue_credentials

PUBLIC_TLS_PORT = 443


def ice_servers(
    config: Config,
    participant_sid: str,
    now_unix: float,
    candidates: Sequence[Candidate] = (),
    *,
    api_key: str = "",
    tls_only: bool = False,
) -> list[rtc.ICEServer]:
    """`candidates` are our own, for the addresses that TURN is reached at. `tls_only`: no TURN over UDP.

    `api_key` is the participant's; any other of the server's does as well, since only the server checks.
    """
    servers = _built_in(config, participant_sid, now_unix, candidates, api_key, tls_only)
    for turn in config.rtc.turn_servers:
        scheme, transport = {"tls": ("turns", "tcp"), "udp": ("turn", "udp")}.get(turn.protocol, ("turn", "tcp"))
        username, credential = turn.username, turn.credential
        if turn.secret:
            username = f"{int(now_unix) + (turn.ttl or 14400)}:{participant_sid}"
            digest = hmac.digest(turn.secret.encode(), username.encode(), hashlib.sha1)
            credential = base64.b64encode(digest).decode()
        url = f"{scheme}:{turn.host}:{turn.port}?transport={transport}"
        servers.append(rtc.ICEServer(urls=[url], username=username, credential=credential))
    stun = [url if url.startswith("stun:") else f"stun:{url}" for url in config.rtc.stun_servers]
    if stun:
        servers.append(rtc.ICEServer(urls=stun))
    return servers


def turn_over_tls(config: Config) -> bool:
    """Whether a client that gets through by nothing else can be sent there."""
    return bool(config.turn.enabled and config.turn.tls_port) or any(
        turn.protocol == "tls" for turn in config.rtc.turn_servers
    )


def _built_in(
    config: Config,
    participant_sid: str,
    now_unix: float,
    candidates: Sequence[Candidate],
    api_key: str,
    tls_only: bool,
) -> list[rtc.ICEServer]:
    turn = config.turn
    key = api_key if api_key in config.keys else next(iter(config.keys), "")
    if not turn.enabled or not key:
        return []
    urls = []
    if turn.udp_port and not (tls_only and turn.tls_port):
        urls += [f"turn:{host}:{turn.udp_port}?transport=udp" for host in turn_hosts(config, candidates)]
    urls += turn_tls_urls(config)
    if not urls:
        return []
    # Credentials of a life of 0 would be refused at once.
    expiry = int(now_unix) + (turn.ttl_seconds or 300)
    username, credential = issue_credentials(key, config.keys[key], participant_sid, expiry)
    return [rtc.ICEServer(urls=urls, username=username, credential=credential)]


def turn_hosts(config: Config, candidates: Sequence[Candidate]) -> list[str]:
    """The announced addresses of those families that TURN listens on, IPv6 in brackets."""
    ips = list(dict.fromkeys(candidate.ip for candidate in candidates if candidate.transport == "udp"))
    ips = ips or [ip.strip() for ip in config.rtc.node_ip.split(",") if ip.strip()]
    families = {":" in address for address in config.turn.bind_addresses}
    return [f"[{ip}]" if ":" in ip else ip for ip in ips if (":" in ip) in families]


def turn_tls_urls(config: Config) -> list[str]:
    turn = config.turn
    if not turn.tls_port:
        return []
    ports = [PUBLIC_TLS_PORT] if turn.external_tls else list(dict.fromkeys((turn.tls_port, PUBLIC_TLS_PORT)))
    return [f"turns:{turn.domain}:{port}?transport=tcp" for port in ports]
