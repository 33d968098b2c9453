"""Session descriptions as text (RFC 8866): a tolerant, bounded parser and the inverse.

A description is a session part and a list of media sections. Attributes stay an ordered list of (name, value), since
most are only looked at once; what both sides of a negotiation ask for has a typed accessor. ICE credentials,
fingerprints, set-up role, direction and header extensions of the session hold for every section that has none of its
own (RFC 8839 section 4.4, RFC 8122 section 5, RFC 4145 section 4, RFC 8866 section 6.7, RFC 8285 section 5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from lkactor.errors import ProtocolViolation
from lkactor.fingerprint import Fingerprint

MAX_SIZE = 256 * 1024
MAX_SECTIONS = 512
MAX_CANDIDATES = 64
MAX_FINGERPRINTS = 8
MAX_SSRCS = 32
MAX_RIDS = 8
DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")
NEWLINE = re.compile(r"\r\n|\n|\r")
TOKEN = re.compile(r"[!#-'*+\-.0-9A-Z^-~]{1,64}")
RID = re.compile(r"[A-Za-z0-9_-]{1,32}")
ICE_UFRAG = re.compile(r"[!-~]{4,256}")
ICE_PWD = re.compile(r"[!-~]{22,256}")
FINGERPRINT = re.compile(r"[0-9A-F]{2}(:[0-9A-F]{2}){15,63}")

Attribute = tuple[str, str]


def parse_number(text: str, limit: int) -> int | None:
    """A decimal number of 0..limit, else None."""
    if not text.isascii() or not text.isdecimal() or len(text) > 10:
        return None
    number = int(text)
    return number if number <= limit else None


@dataclass(slots=True)
class AttributeList:
    """Attributes in order; a flag has the value ""."""

    attributes: list[Attribute] = field(default_factory=list)

    def get(self, name: str) -> str | None:
        return next((value for key, value in self.attributes if key == name), None)

    def get_all(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]

    def has(self, name: str) -> bool:
        return any(key == name for key, _ in self.attributes)

    def add(self, name: str, value: str = "") -> None:
        self.attributes.append((name, value))

    def attribute_lines(self) -> list[str]:
        return [f"a={name}:{value}" if value else f"a={name}" for name, value in self.attributes]


@dataclass(slots=True)
class MediaSection(AttributeList):
    """One m= line and what follows it. `session` is the description's own list, for what is inherited."""

    kind: str = ""
    port: int = 9
    protocol: str = ""
    formats: list[str] = field(default_factory=list)
    session: AttributeList = field(default_factory=AttributeList)

    @classmethod
    def parse_line(cls, value: str, session: AttributeList) -> MediaSection:
        parts = value.split()
        if len(parts) < 4:
            raise ProtocolViolation("sdp.bad_media_line")
        port = parse_number(parts[1].partition("/")[0], 65535)
        if port is None:
            raise ProtocolViolation("sdp.bad_port")
        return cls(kind=parts[0], port=port, protocol=parts[2], formats=parts[3:], session=session)

    @property
    def mid(self) -> str:
        """Empty if the section has none, or none that can be echoed."""
        mid = self.get("mid") or ""
        return mid if TOKEN.fullmatch(mid) else ""

    @property
    def rejected(self) -> bool:
        # RFC 9143 section 6: port 0 with bundle-only is not a rejection.
        return self.port == 0 and not self.has("bundle-only")

    @property
    def direction(self) -> str:
        for attributes in (self.attributes, self.session.attributes):
            for name, _ in attributes:
                if name in DIRECTIONS:
                    return name
        return "sendrecv"

    @property
    def peer_sends(self) -> bool:
        return self.direction in ("sendrecv", "sendonly")

    def inherited(self, name: str) -> str | None:
        own = self.get(name)
        return own if own is not None else self.session.get(name)

    @property
    def fingerprints(self) -> tuple[Fingerprint, ...]:
        """Malformed ones are left out; the handshake accepts any that remain (RFC 8122 section 5.1)."""
        found = []
        for value in self.get_all("fingerprint") or self.session.get_all("fingerprint"):
            algorithm, _, digest = value.strip().partition(" ")
            digest = digest.strip().upper()
            if FINGERPRINT.fullmatch(digest) and TOKEN.fullmatch(algorithm):
                found.append(Fingerprint(algorithm.lower(), digest))
        return tuple(found[:MAX_FINGERPRINTS])

    @property
    def ice_credentials(self) -> tuple[str, str] | None:
        ufrag, pwd = self.inherited("ice-ufrag") or "", self.inherited("ice-pwd") or ""
        if not ICE_UFRAG.fullmatch(ufrag) or not ICE_PWD.fullmatch(pwd):
            return None
        return ufrag, pwd

    @property
    def candidates(self) -> tuple[str, ...]:
        """In the form that trickling uses: "candidate:...", the first MAX_CANDIDATES of them."""
        return tuple(f"candidate:{value}" for value in self.get_all("candidate")[:MAX_CANDIDATES])

    @property
    def extensions(self) -> dict[str, int]:
        """URI -> id. Only ids that the one-byte form can carry, 1..14 (RFC 8285 section 4.2)."""
        found: dict[str, int] = {}
        for value in self.session.get_all("extmap") + self.get_all("extmap"):
            parts = value.split()
            if len(parts) < 2:
                continue
            number = parse_number(parts[0].partition("/")[0], 14)
            if number and number not in found.values():
                found.setdefault(parts[1], number)
        return found

    @property
    def msid(self) -> tuple[str, str]:
        """(stream id, track id) of RFC 8830, or of the older a=ssrc form; empty strings if absent."""
        values = self.get_all("msid")
        values += [text[5:] for _, text in self._ssrc_lines() if text.startswith("msid:")]
        for value in values:
            parts = value.split()
            if parts:
                return parts[0], parts[1] if len(parts) > 1 else ""
        return "", ""

    def _ssrc_lines(self) -> list[tuple[int, str]]:
        found = []
        for value in self.get_all("ssrc"):
            number, _, text = value.partition(" ")
            ssrc = parse_number(number, 0xFFFFFFFF)
            if ssrc is not None:
                found.append((ssrc, text.strip()))
        return found

    def ssrcs(self) -> tuple[tuple[int, ...], dict[int, int]]:
        """(media SSRCs, RTX SSRC -> media SSRC). Simulcast groups give the order (RFC 5576 section 4.2)."""
        order: list[int] = []
        rtx_of: dict[int, int] = {}
        for value in self.get_all("ssrc-group"):
            semantics, *texts = value.split() or [""]
            numbers = [n for n in (parse_number(text, 0xFFFFFFFF) for text in texts[:MAX_SSRCS]) if n is not None]
            if semantics == "FID" and len(numbers) == 2 and len(rtx_of) < MAX_SSRCS:
                rtx_of[numbers[1]] = numbers[0]
            elif semantics == "SIM":
                order.extend(numbers)
        order.extend(ssrc for ssrc, _ in self._ssrc_lines())
        media = tuple(dict.fromkeys(ssrc for ssrc in order if ssrc not in rtx_of))
        return media[:MAX_SSRCS], rtx_of

    def send_rids(self) -> tuple[str, ...]:
        """The layers the peer will send, in its order (RFC 8853 section 5.1). A paused one counts as any other."""
        declared = [parts[0] for parts in map(str.split, self.get_all("rid")) if parts[1:2] == ["send"]]
        listed: list[str] = []
        parts = (self.get("simulcast") or "").split()
        for direction, value in zip(parts[::2], parts[1::2], strict=False):
            if direction == "send":
                # Alternatives of one layer are separated by commas: the first is the preferred one.
                listed = [entry.partition(",")[0].lstrip("~") for entry in value.split(";")]
        rids = dict.fromkeys(rid for rid in listed if RID.fullmatch(rid) and rid in declared)
        return tuple(rids)[:MAX_RIDS]

    def __str__(self) -> str:
        head = [f"m={self.kind} {self.port} {self.protocol} {' '.join(self.formats)}", "c=IN IP4 0.0.0.0"]
        return "".join(f"{line}\r\n" for line in head + self.attribute_lines())


@dataclass(slots=True)
class SessionDescription(AttributeList):
    session_id: int = 0
    version: int = 0
    media: list[MediaSection] = field(default_factory=list)

    @classmethod
    def parse(cls, text: str) -> SessionDescription:
        """Unknown lines are skipped. Raises ProtocolViolation("sdp.…")."""
        if len(text) > MAX_SIZE:
            raise ProtocolViolation("sdp.too_large")
        lines = [line for line in NEWLINE.split(text) if line]
        if not lines or lines[0].strip() != "v=0":
            raise ProtocolViolation("sdp.no_version")
        description = cls()
        session = AttributeList(description.attributes)  # Not the description: it knows its sections already.
        current: AttributeList = description
        for line in lines:
            kind, separator, value = line.partition("=")
            if not separator or len(kind) != 1:
                raise ProtocolViolation("sdp.bad_line")
            if kind == "m":
                if len(description.media) >= MAX_SECTIONS:
                    raise ProtocolViolation("sdp.too_many_sections")
                section = MediaSection.parse_line(value, session)
                description.media.append(section)
                current = section
            elif kind == "a":
                name, _, rest = value.strip().partition(":")
                current.add(name, rest.strip())
        return description

    @property
    def bundle(self) -> tuple[str, ...]:
        """The mids of the first BUNDLE group; empty if the peer does not bundle."""
        for value in self.get_all("group"):
            semantics, *mids = value.split() or [""]
            if semantics == "BUNDLE":
                return tuple(mids)
        return ()

    @property
    def lite(self) -> bool:
        return self.has("ice-lite")

    def __str__(self) -> str:
        head = ["v=0", f"o=- {self.session_id} {self.version} IN IP4 0.0.0.0", "s=-", "t=0 0"]
        session = "".join(f"{line}\r\n" for line in head + self.attribute_lines())
        return session + "".join(str(section) for section in self.media)
