"""Our HTTP client against servers good and bad, over memory streams: TLS, cut-off answers, nonsense, bounds."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.actor_leaks import run_actors

from actors.httpclient import Dead, HttpClient, HttpError, HttpResponse, shown_url, target_of

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Server = Callable[[trio.abc.Stream], Awaitable[None]]


def serving(monkeypatch: pytest.MonkeyPatch, server: Server, test: Callable[[], Awaitable[None]]) -> None:
    """Run `test` with every connection going to `server`."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:

            async def connect(host: str, port: int) -> trio.abc.Stream:
                client, other = trio.testing.memory_stream_pair()
                nursery.start_soon(server, other)
                return client

            monkeypatch.setattr("actors.httpclient.trio.open_tcp_stream", connect)
            await test()
            nursery.cancel_scope.cancel()

    run_actors(main)


def says(data: bytes, *, close: bool = True) -> Server:
    async def server(stream: trio.abc.Stream) -> None:
        await stream.receive_some(65536)
        await stream.send_all(data)
        if close:
            await stream.aclose()
        else:
            await trio.sleep_forever()

    return server


async def ask(client: HttpClient, **options: int) -> HttpResponse:
    with trio.fail_after(20):
        return await client.request("POST", "/x", {"A": "b"}, b"body", **options)


@pytest.mark.parametrize(
    ("data", "status", "body"),
    [
        (OK, 200, b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, b"ok"),
        (b"HTTP/1.0 404 Not Found\r\n\r\nuntil the end", 404, b"until the end"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n", 302, b""),
    ],
)
def test_answers(monkeypatch: pytest.MonkeyPatch, data: bytes, status: int, body: bytes) -> None:
    async def test() -> None:
        client = HttpClient("http://back")
        answer = await ask(client)
        assert (answer.status, answer.body) == (status, body)
        await client.aclose()

    serving(monkeypatch, says(data), test)


@pytest.mark.parametrize(
    "data",
    [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"HTTP/9 200 OK\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000],
)  # fmt: skip
def test_what_is_no_answer(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    async def test() -> None:
        with pytest.raises(HttpError):
            await ask(HttpClient("http://back"))

    serving(monkeypatch, says(data), test)


def test_an_answer_cut_off_at_every_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    for cut in range(len(OK)):

        async def test(cut: int = cut) -> None:
            with pytest.raises(HttpError) as error:
                await ask(HttpClient("http://back"))
            assert isinstance(error.value, Dead) == (cut == 0)

        serving(monkeypatch, says(OK[:cut]), test)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300))
def test_any_answer_is_an_answer_or_an_http_error(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    async def test() -> None:
        client = HttpClient("http://back")
        try:
            await ask(client)
        except HttpError:
            pass
        await client.aclose()

    serving(monkeypatch, says(b"HTTP/1.1 200 " + data), test)


def test_a_long_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        answer = await ask(HttpClient("http://back"), max_body=1000)
        assert answer.body == b"x" * 1000

    serving(monkeypatch, says(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 500_000, close=False), test)


def test_the_request_on_the_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    async def server(stream: trio.abc.Stream) -> None:
        for _ in range(2):
            seen.append(bytes(await stream.receive_some(65536)))
            await stream.send_all(OK)

    async def test() -> None:
        client = HttpClient("http://user:secret@[::1]:8080/ignored", user_agent="LiveKit")
        await ask(client)
        await client.request("GET", "/y?z=1", {})
        await client.aclose()

    serving(monkeypatch, server, test)
    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert body == b"body"
    assert head.split(b"\r\n") == [
        b"POST /x HTTP/1.1", b"Host: [::1]:8080", b"User-Agent: LiveKit", b"A: b", b"Content-Length: 4",
    ]  # fmt: skip
    assert seen[1].startswith(b"GET /y?z=1 HTTP/1.1\r\nHost: [::1]:8080\r\n")
    assert b"Content-Length" not in seen[1]
    assert b"secret" not in b"".join(seen)


def test_an_old_connection_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    connections = 0

    async def server(stream: trio.abc.Stream) -> None:
        nonlocal connections
        connections += 1
        while await stream.receive_some(65536):
            await stream.send_all(OK)

    async def test() -> None:
        client = HttpClient("http://back")
        await ask(client)
        await ask(client)
        assert connections == 1
        await trio.sleep(31)
        await ask(client)
        assert connections == 2
        await client.aclose()

    serving(monkeypatch, server, test)


def test_the_connection_attempt_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(host: str, port: int) -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    async def main() -> None:
        monkeypatch.setattr("actors.httpclient.trio.open_tcp_stream", never)
        with pytest.raises(HttpError, match="no connection"):
            await ask(HttpClient("http://back"))
        assert trio.current_time() > 0

    run_actors(main)


@pytest.mark.parametrize(
    "url",
    ["", "back", "ftp://back/", "http://", "https:///x", "http://back:x/", "http://back:99999/", "http://[::1/",
     "http://back/a b", "http://back/\n", "http://bäck/", "http://back/ü", "//back/"],
)  # fmt: skip
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match="address"):
        target_of(url)
    with pytest.raises(ValueError, match="address"):
        HttpClient(url)


def test_targets_and_what_is_shown() -> None:
    assert target_of("http://back") == "/"
    assert target_of("https://back:1/a/b?c=d&e#f") == "/a/b?c=d&e"
    assert target_of("http://back?x") == "/?x"
    assert shown_url("https://user:secret@back:444/hook?token=secret") == "https://back:444/hook"
    assert shown_url("http://[::1]/") == "http://[::1]/"


# -- TLS


def certificate(name: str, directory: Path) -> Path:
    """A self-signed certificate with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = directory / f"{name}.pem"
    kept = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    text = made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(serialization.Encoding.PEM, form, kept)
    path.write_bytes(text)
    return path


@pytest.mark.parametrize(
    ("host", "trusted", "error"),
    [("back", True, ""), ("back", False, "certificate: self"), ("other", True, "certificate: Hostname mismatch")],
)
def test_certificates_are_verified(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: str, trusted: bool, error: str
) -> None:
    pem = certificate("back", tmp_path)
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_context.load_cert_chain(pem)
    client_context = ssl.create_default_context(cafile=str(pem)) if trusted else None

    async def server(stream: trio.abc.Stream) -> None:
        secure = trio.SSLStream(stream, server_context, server_side=True)
        try:
            while await secure.receive_some(65536):
                await secure.send_all(OK)
        except trio.BrokenResourceError:
            pass

    async def test() -> None:
        client = HttpClient(f"https://{host}", tls=client_context)
        if error:
            with pytest.raises(HttpError, match=error):
                await ask(client)
        else:
            assert (await ask(client)).body == b"ok"
            assert (await ask(client)).body == b"ok"
        await client.aclose()

    serving(monkeypatch, server, test)
