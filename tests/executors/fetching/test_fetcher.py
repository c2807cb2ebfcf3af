"""What is fetched, what goes with the request, and how each fault and each limit reads."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import socket
import ssl
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from executors.errors import ExecutorError, InvalidInput, NotFound, ProviderUnavailable
from executors.fetching import Fetcher
from tests.executors.fetching.internet import PUBLIC, TRUST, Internet, plain

LIMIT = 100_000


async def test_the_bytes_at_a_url(internet: Internet, fetcher: Fetcher) -> None:
    """Query and path arrive as they were written; the fragment stays here."""
    internet.pages["/a%2Fb/%C3%A4?x=%26&y=z"] = plain(b"\x89PNG")
    url = internet.url("/a%2Fb/ä?x=%26&y=z#here")
    assert await fetcher.fetch(url, max_bytes=LIMIT) == b"\x89PNG"


async def test_an_international_name(internet: Internet, fetcher: Fetcher) -> None:
    """Looked up as DNS knows it."""
    internet.names["xn--mnchen-3ya.example"] = [PUBLIC]
    internet.pages["/"] = plain(b"x")
    url = internet.url(host="MÜNCHEN.example.")
    assert await fetcher.fetch(url, max_bytes=LIMIT) == b"x"


async def test_an_address_that_is_public_needs_no_name(
    internet: Internet, fetcher: Fetcher
) -> None:
    """Nobody is asked for a name that is a number."""
    internet.pages["/"] = plain(b"x")
    assert await fetcher.fetch(internet.url(host=str(PUBLIC)), max_bytes=LIMIT) == b"x"
    assert internet.looked_up == []


async def test_nothing_of_ours_goes_along(
    internet: Internet, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No cookie that was set on the way, no referrer, nothing of a netrc file."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    internet.pages["/"] = plain(b"", "Location: /b", "Set-Cookie: a=b", status="302 Found")
    internet.pages["/b"] = plain(b"x")
    for _ in range(2):
        await fetcher.fetch(internet.url(), max_bytes=LIMIT)
    assert [asked.target for asked in internet.asked] == ["/", "/b", "/", "/b"]
    expected = {"host", "user-agent", "accept", "accept-encoding", "connection"}
    assert all(set(asked.headers) == expected for asked in internet.asked)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed(internet: Internet, fetcher: Fetcher, status: int) -> None:
    """To other hosts too; paths may be relative, and look like names."""
    internet.names["cdn.example"] = [PUBLIC]
    there = internet.url("/x//me@2x.png", host="cdn.example")
    internet.pages["/a/b"] = plain(b"", "Location: ../c", status=f"{status} Moved")
    internet.pages["/c"] = plain(b"", f"Location: {there}", status=f"{status} Moved")
    internet.pages["/x//me@2x.png"] = plain(b"x")
    assert await fetcher.fetch(internet.url("/a/b"), max_bytes=LIMIT) == b"x"
    assert internet.looked_up == ["public.example", "public.example", "cdn.example"]


async def test_redirects_without_end(internet: Internet, fetcher: Fetcher) -> None:
    """Five are followed, not one more."""
    internet.pages["/"] = plain(b"", "Location: /", status="302 Found")
    with pytest.raises(InvalidInput, match="from one to another"):
        await fetcher.fetch(internet.url(), max_bytes=LIMIT)
    assert len(internet.asked) == 6


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("201 Created", InvalidInput),
        ("204 No Content", InvalidInput),
        ("300 Multiple Choices", InvalidInput),
        ("304 Not Modified", InvalidInput),
        ("400 Bad Request", InvalidInput),
        ("401 Unauthorized", InvalidInput),
        ("403 Forbidden", InvalidInput),
        ("404 Not Found", NotFound),
        ("408 Timeout", ProviderUnavailable),
        ("410 Gone", NotFound),
        ("418 Teapot", InvalidInput),
        ("429 Too Many Requests", ProviderUnavailable),
        ("451 Censored", InvalidInput),
        ("500 Error", ProviderUnavailable),
        ("503 Unavailable", ProviderUnavailable),
        ("599 ?", ProviderUnavailable),
    ],
)
async def test_every_status(
    internet: Internet, fetcher: Fetcher, status: str, kind: type[ExecutorError]
) -> None:
    """What will never work, what is not there, and what may work later."""
    internet.pages["/"] = plain(b"" if status[:3] in ("204", "304") else b"x", status=status)
    with pytest.raises(ExecutorError) as failure:
        await fetcher.fetch(internet.url(), max_bytes=LIMIT)
    assert type(failure.value) is kind


def chunked(*chunks: bytes, headers: str = "") -> bytes:
    """An answer in chunks, of a length that nobody knows before."""
    body = b"".join(f"{len(c):x}\r\n".encode() + c + b"\r\n" for c in (*chunks, b""))
    return f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{headers}\r\n".encode() + body


def squeezed(body: bytes, encoding: str, content: bytes | None = None) -> bytes:
    """An answer that says it is compressed."""
    compress: Callable[[bytes], bytes] = gzip.compress if "gzip" in encoding else zlib.compress
    return plain(compress(body) if content is None else content, f"Content-Encoding: {encoding}")


@pytest.mark.parametrize(
    "page",
    [
        plain(b"x" * LIMIT),
        chunked(b"x" * (LIMIT - 1), b"x"),
        squeezed(b"x" * LIMIT, "gzip"),
        squeezed(b"x" * LIMIT, "X-GZIP"),
        squeezed(b"x" * LIMIT, "deflate"),
        squeezed(b"", "gzip", gzip.compress(b"x" * LIMIT) + b"trailing"),
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * LIMIT,
    ],
)
async def test_a_file_of_exactly_the_limit(
    internet: Internet, fetcher: Fetcher, page: bytes
) -> None:
    """Every way to send it, compressed or not."""
    internet.pages["/"] = page
    assert await fetcher.fetch(internet.url(), max_bytes=LIMIT) == b"x" * LIMIT


@pytest.mark.parametrize(
    "page",
    [
        plain(b"x" * (LIMIT + 1)),
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\nx",
        chunked(b"x" * LIMIT, b"x"),
        squeezed(b"x" * (LIMIT + 1), "gzip"),
        squeezed(b"\0" * 50_000_000, "deflate"),
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (LIMIT + 1),
    ],
)
async def test_a_byte_more(internet: Internet, fetcher: Fetcher, page: bytes) -> None:
    """Refused by what the header says, or as soon as it is too much."""
    internet.pages["/"] = page
    with pytest.raises(InvalidInput, match="larger than 100,000 bytes"):
        await fetcher.fetch(internet.url(), max_bytes=LIMIT)


async def test_a_body_without_end(internet: Internet, fetcher: Fetcher) -> None:
    """The connection is closed at the limit: the server cannot write on."""
    written = 0

    async def pour(writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            written += 65536

    internet.pages["/"] = pour
    with pytest.raises(InvalidInput, match="larger"):
        await fetcher.fetch(internet.url(), max_bytes=LIMIT)
    assert written < 64 * 2**20, "no more than buffers hold"


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress", "whatever"])
async def test_an_encoding_that_was_not_asked_for(
    internet: Internet, fetcher: Fetcher, encoding: str
) -> None:
    """Refused: nothing is unpacked that cannot be stopped."""
    internet.pages["/"] = plain(b"x", f"Content-Encoding: {encoding}")
    with pytest.raises(InvalidInput, match="compresses"):
        await fetcher.fetch(internet.url(), max_bytes=LIMIT)


async def silent(_: asyncio.StreamWriter) -> None:
    """Take the request, and nothing else."""
    await asyncio.sleep(60)


async def dripping(writer: asyncio.StreamWriter) -> None:
    """A byte at a time, never idle."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("page", [silent, dripping])
async def test_a_server_without_haste(internet: Internet, page: Callable[..., object]) -> None:
    """The time is for everything: a byte now and then does not buy more."""
    internet.pages["/"] = page  # type: ignore[assignment]
    fetcher = internet.fetcher(seconds=0.3)
    with pytest.raises(ProviderUnavailable, match="takes too long"):
        await fetcher.fetch(internet.url(), max_bytes=LIMIT)
    await fetcher.close()


async def test_a_name_that_is_not_answered(
    internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking up counts as well."""

    async def never(_: str) -> list:  # type: ignore[type-arg]
        await asyncio.sleep(60)
        return []

    monkeypatch.setattr(internet, "lookup", never)
    fetcher = internet.fetcher(seconds=0.3)
    with pytest.raises(ProviderUnavailable, match="takes too long"):
        await fetcher.fetch(internet.url(), max_bytes=LIMIT)
    await fetcher.close()


async def test_names_are_away_for_a_moment(
    internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resolver in trouble is no reason to give up on the job."""

    async def failing(_: str) -> list:  # type: ignore[type-arg]
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(internet, "lookup", failing)
    fetcher = internet.fetcher()
    with pytest.raises(ProviderUnavailable, match="cannot be looked up"):
        await fetcher.fetch(internet.url(), max_bytes=LIMIT)
    await fetcher.close()


@pytest.mark.parametrize(
    "page",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        squeezed(b"", "gzip", gzip.compress(b"x" * 1000)[:20]),
        squeezed(b"", "gzip", b"this is no gzip"),
    ],
)
async def test_a_server_that_breaks_off(internet: Internet, fetcher: Fetcher, page: bytes) -> None:
    """Half an answer, or none that HTTP knows, may be a whole one later."""
    internet.pages["/"] = page
    with pytest.raises(ProviderUnavailable) as failure:
        await fetcher.fetch(internet.url(), max_bytes=LIMIT)
    assert str(PUBLIC) not in str(failure.value)
    assert str(internet.port) not in str(failure.value)


async def test_nobody_listens(internet: Internet, fetcher: Fetcher) -> None:
    """A connection that is refused is no answer for ever."""
    with socket.socket() as bound:
        bound.bind((str(PUBLIC), 0))
        url = f"http://public.example:{bound.getsockname()[1]}/"
        with pytest.raises(ProviderUnavailable, match="cannot be reached"):
            await fetcher.fetch(url, max_bytes=LIMIT)


async def test_cancelled_in_the_middle(internet: Internet, fetcher: Fetcher) -> None:
    """The connection is closed, and the fetcher fetches on."""
    gone = asyncio.Event()

    async def watched(writer: asyncio.StreamWriter) -> None:
        try:
            await dripping(writer)
        finally:
            gone.set()

    internet.pages["/"] = watched
    internet.pages["/b"] = plain(b"x")
    task = asyncio.create_task(fetcher.fetch(internet.url(), max_bytes=LIMIT))
    while not internet.asked:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(10):
        await gone.wait()
    assert await fetcher.fetch(internet.url("/b"), max_bytes=LIMIT) == b"x"


async def test_the_systems_own_resolver() -> None:
    """Every machine knows localhost; it is looked up, and refused."""
    fetcher = Fetcher()
    addresses = await fetcher._look_up("localhost")
    assert addresses
    assert all(address.is_loopback for address in addresses)
    with pytest.raises(InvalidInput, match="may not be fetched"):
        await fetcher.fetch("https://localhost.localdomain/", max_bytes=LIMIT)
    await fetcher.close()
    await fetcher.close()


# --- TLS -----------------------------------------------------------------------------------------


def certified(folder: Path, name: str) -> ssl.SSLContext:
    """A server with a certificate for ``name``, signed by itself: ``folder``/ca.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "ca.pem", folder / "key.pem")
    return context


@pytest.mark.parametrize(
    ("trusted", "name", "works"),
    [
        (True, "public.example", True),
        (True, "other.example", False),
        (False, "public.example", False),
    ],
)
async def test_certificates(
    internet: Internet,
    tmp_path: Path,
    trusted: bool,
    name: str,
    works: bool,
) -> None:
    """Checked against the name in the URL, though the connection goes to an address."""
    context = certified(tmp_path, name)
    trust = ssl.create_default_context(cafile=tmp_path / "ca.pem") if trusted else TRUST
    internet.pages["/"] = plain(b"over TLS")
    server = await asyncio.start_server(internet.serve, str(PUBLIC), 0, ssl=context)
    internet.port = server.sockets[0].getsockname()[1]
    fetcher = internet.fetcher(http=False, tls=trust)
    async with server:
        fetching = fetcher.fetch(internet.url(scheme="https"), max_bytes=LIMIT)
        if works:
            assert await fetching == b"over TLS"
        else:
            with pytest.raises(InvalidInput, match="no valid certificate"):
                await fetching
    await fetcher.close()


def test_the_test_address_is_not_public() -> None:
    """What tests call public is this machine, and production would refuse it."""
    assert PUBLIC in ipaddress.ip_network("127.0.0.0/8")
