"""The first of the three error families: what a peer did wrong.

The others are `actors.kernel`'s runtime errors and bugs, which have no class: they crash the actor they are in.
"""


class ProtocolViolation(Exception):
    """Bad input from a peer. Counted and dropped or answered, never a crash.

    `reason` is a short dotted code of our own ("stun.truncated"); it names the counter, so it never holds peer data.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
