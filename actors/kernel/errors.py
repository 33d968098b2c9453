"""The runtime's errors: the second of the three error families (the peer's fault, the runtime's, bugs)."""

from __future__ import annotations


class ActorError(Exception):
    """Base of everything the kernel raises at its callers. `path` is the actor it is about."""

    def __init__(self, path: str, text: str) -> None:
        super().__init__(f"{path}: {text}")
        self.path = path


class MailboxFull(ActorError):
    """The control lane is at its bound. The sender decides: drop a slow client, answer, retry, crash."""

    def __init__(self, path: str, capacity: int) -> None:
        super().__init__(path, f"mailbox full ({capacity} messages)")
        self.capacity = capacity


class ActorDead(ActorError):
    """The actor has ended, is about to, or crashed while it handled the ask (then `__cause__` is its error)."""

    def __init__(self, path: str, text: str = "the actor has ended") -> None:
        super().__init__(path, text)


class AskTimeout(ActorError):
    """No reply in time. The message stays queued and will be handled; its reply goes nowhere."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__(path, f"no reply within {timeout:g} s")
        self.timeout = timeout


class AskCycle(ActorError):
    """This ask would wait for somebody who waits for the asker. `ring` is the paths, asker first and last."""

    def __init__(self, path: str, ring: tuple[str, ...]) -> None:
        super().__init__(path, "ask would dead-lock: " + " -> ".join(ring))
        self.ring = ring


class StartFailed(ActorError):
    """The factory or `started()` raised (`__cause__`), the name is taken, or the actor was killed at start."""


class RestartIntensityExceeded(ActorError):
    """A supervisor gave up; raised into its own nursery. `__cause__` is the child's last error, where there is one."""

    def __init__(self, path: str, child: str, intensity: int, period: float) -> None:
        super().__init__(path, f"{child} needed more than {intensity} restarts in {period:g} s")
        self.child = child
