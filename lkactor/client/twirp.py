"""Twirp calls to a LiveKit server: protobuf over POST, a token of its own for each call (livekit-surface 3.1)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TypeVar

import trio
from google.protobuf.message import DecodeError, Message

from actors.httpclient import HttpClient, HttpError, HttpResponse, target_of
from lkactor.api.twirp import STATUS, TwirpError
from lkactor.auth import issue_token

TOKEN_LIFE = 600.0
TIMEOUT = 30.0
MAX_ANSWER = 64 * 1024 * 1024
R = TypeVar("R", bound=Message)


def http_url(url: str) -> str:
    """ws:// and wss:// as http:// and https://, without a slash at the end."""
    if url.startswith("ws"):
        url = "http" + url[2:]
    return url.rstrip("/")


class TwirpClient:
    """Calls to one server. Raises ValueError for an address that is none."""

    def __init__(self, url: str, api_key: str, api_secret: str, *, identity: str = "lkactor-cli") -> None:
        base = http_url(url)
        self._client = HttpClient(base, user_agent="lkactor-cli")
        self._base = target_of(base).rstrip("/")
        self._key, self._secret, self._identity = api_key, api_secret, identity

    async def call(self, service: str, method: str, request: Message, answer: type[R], **grants: object) -> R:
        """`grants` are those of the token: `room_list=True`. Raises TwirpError, and HttpError without an answer."""
        token = issue_token(
            self._key, self._secret, identity=self._identity, video=grants, ttl=TOKEN_LIFE, now_unix=time.time()
        )
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/protobuf"}
        target = f"{self._base}/twirp/livekit.{service}/{method}"
        try:
            with trio.fail_after(TIMEOUT):
                response = await self._client.request(
                    "POST", target, headers, request.SerializeToString(), max_body=MAX_ANSWER
                )
        except trio.TooSlowError:
            raise HttpError(f"no answer within {TIMEOUT:g} s") from None
        if response.status != 200:
            raise _refusal(response)
        message = answer()
        try:
            message.ParseFromString(response.body)
        except DecodeError:
            raise HttpError("the answer is no protobuf: is this a LiveKit server?") from None
        return message

    async def aclose(self) -> None:
        await self._client.aclose()


def _refusal(response: HttpResponse) -> Exception:
    try:
        body = json.loads(response.body)
    except ValueError:
        body = None
    if isinstance(body, Mapping) and body.get("code") in STATUS:
        return TwirpError(str(body["code"]), str(body.get("msg", "")))
    if response.status in (401, 403):
        text = response.body[:200].decode("utf-8", "replace").strip()
        return TwirpError("unauthenticated" if response.status == 401 else "permission_denied", text)
    return HttpError(f"HTTP {response.status} instead of a Twirp answer: is this a LiveKit server?")
