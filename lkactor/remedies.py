"""What to do about a join that failed: the fix that goes with a cause, by step of the join verdict. Pure.

The first row whose step and text fit. Texts are those of refusals (livekit-surface 1.2, 2.2) and of `lkactor.peer`.
"""

from __future__ import annotations

REMEDIES: tuple[tuple[str, str, str], ...] = (
    ("token", "invalid API key",
     "the server does not have this key: add it to `keys:`, or sign with one that is there"),
    ("token", "signature is invalid",
     "the secret that signed the token is not the server's for that key: correct it where tokens are made"),
    ("token", "token is expired",
     "make a new token; if it was new, the clock where tokens are made is behind the server's: run NTP on both"),
    ("token", "not valid yet",
     "the clock where tokens are made is ahead of the server's: run NTP on both"),
    ("token", "exp claim",
     "the token needs an `exp` claim: make it with a server SDK or `lkactor token create`"),
    ("token", "permission",
     "the token needs video.roomJoin, and this room in video.room: see `lkactor token explain`"),
    ("token", "",
     "the token is damaged: see `lkactor token explain`"),
    ("signal", "requested room does not exist",
     "create the room first (`lkactor room create`), set room.auto_create: true, or give the token roomCreate"),
    ("signal", "draining",
     "this server makes room for its end: connect to another, or `lkactor undrain`"),
    ("signal", "no room name",
     "name the room: video.room of the token"),
    ("signal", "identity",
     "the token needs an identity of fair length: its `sub` claim"),
    ("signal", "",
     "the request is not what a LiveKit client sends: is the SDK current, does a proxy change what passes?"),
    ("offer", "",
     "the client's description did not come, or was refused: its own log says more"),
    ("ice", "",
     "open the media ports (`lkactor ports`) for UDP and TCP; run `lkactor doctor` where the client is: is the address "
     "announced this server's? rtc.node_ip sets it; TURN goes around firewalls"),
    ("dtls", "fingerprint",
     "the client's certificate is not the one that its description names: something changes descriptions on their way, "
     "or another client answers at that address"),
    ("dtls", "",
     "checks get through and larger packets do not: look for a tunnel with a small MTU, or a firewall that knows DTLS"),
    ("data", "",
     "the connection is up and its data channels are not: the client must open or accept _reliable and _lossy"),
    ("media", "",
     "the client announced the track and sends nothing: is it muted or without a source, are packets too large?"),
)  # fmt: skip


def remedy(step: str, cause: str) -> str:
    """One clause or two; "" for a step that has none."""
    return next((fix for name, text, fix in REMEDIES if name == step and text in cause), "")
