"""Session identifiers: a prefix and twelve characters that cannot be misread (livekit-surface, head)."""

import random

ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

TRACK_SOURCES = {1: "C", 2: "M", 3: "S", 4: "s"}
"""By TrackSource: camera, microphone, screen share, screen share audio."""


_BITS = 96
"""Of one draw: over 57 ** 12 by so much that no character is likelier than another by more than 2 ** -26."""


def new_sid(prefix: str, rng: random.Random) -> str:
    """ "PA_" + 12 characters. One draw for all of them: each costs a system call."""
    number, letters = rng.getrandbits(_BITS), [prefix]
    for _ in range(12):
        number, index = divmod(number, len(ALPHABET))
        letters.append(ALPHABET[index])
    return "".join(letters)


def new_track_sid(kind: str, source: int, rng: random.Random) -> str:
    """ "TR_" + V or A + the source's letter + 12 characters. `kind` is "audio" or "video"."""
    letter = "V" if kind == "video" else "A"
    return new_sid(f"TR_{letter}{TRACK_SOURCES.get(source, 'M' if kind == 'audio' else 'C')}", rng)
