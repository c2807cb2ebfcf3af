"""``rediss://``: the certificate must be of a trusted authority, and of the host in the URL."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from uvian_worker.redis.connection import redis_from_url
from uvian_worker.redis.errors import RedisAway
from uvian_worker.redis.permissions import missing_permissions


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    hosts: list[x509.GeneralName],
) -> bytes:
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name("our authority"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=not hosts, path_length=None), critical=True)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True)
class Encrypted:
    """A server that answers PING over TLS."""

    port: int
    authority: Path


@pytest.fixture(params=["other.example", "127.0.0.1"])
async def encrypted(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Encrypted]:
    """… with a certificate of this host."""
    host: str = request.param
    names: list[x509.GeneralName] = (
        [x509.IPAddress(ipaddress.ip_address(host))] if host[0].isdigit() else [x509.DNSName(host)]
    )
    signer, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = tmp_path / "authority.pem"
    authority.write_bytes(_certificate("our authority", signer, signer, hosts=[]))
    both = tmp_path / "server.pem"
    both.write_bytes(
        _certificate(host, key, signer, hosts=names)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            writer.write(b"+PONG\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield Encrypted(server.sockets[0].getsockname()[1], authority)
    server.close()


async def outcome(url: str) -> str:
    """What a ping says, or why there is none."""
    redis = redis_from_url(url, patience=0)
    try:
        return str(await redis.ping())
    except RedisAway as away:
        return str(away)
    finally:
        await redis.aclose()


async def test_a_certificate_of_another_host_is_refused(
    encrypted: Encrypted, request: pytest.FixtureRequest
) -> None:
    """An authority that we trust signs for many: by itself that says nothing of this server."""
    url = f"rediss://127.0.0.1:{encrypted.port}/0"
    trusting = f"{url}?ssl_ca_certs={encrypted.authority}"
    is_other = "other.example" in request.node.name
    for query in ("", "&ssl_cert_reqs=required", "&ssl_check_hostname=true"):
        said = await outcome(trusting + query)
        assert ("not valid for '127.0.0.1'" in said) if is_other else (said == "True"), said
    assert await outcome(f"{trusting}&ssl_check_hostname=false") == "True"
    assert await outcome(f"{url}?ssl_cert_reqs=none") == "True"
    assert await outcome(f"{url}?ssl_cert_reqs=CERT_NONE") == "True"
    assert "certificate that is not accepted" in await outcome(url)


async def test_tls_on_one_side_alone_is_named(encrypted: Encrypted) -> None:
    """One line that says what to write in the URL."""
    assert "rediss://" in await outcome(f"redis://127.0.0.1:{encrypted.port}/0")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"-ERR unknown command\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    said = await outcome(f"rediss://127.0.0.1:{port}/0")
    assert "redis://" in said
    server.close()


def test_a_word_that_is_none_is_refused() -> None:
    """When the URL is read, not with the first command."""
    with pytest.raises(ValueError, match="none, optional or required"):
        redis_from_url("rediss://127.0.0.1:1/0?ssl_cert_reqs=maybe")


async def test_a_start_without_tls_says_to_use_it(encrypted: Encrypted) -> None:
    """The server hangs up on plain words, as one that is away does: who starts looks again, with TLS."""
    redis = redis_from_url(f"redis://127.0.0.1:{encrypted.port}/0", patience=0)
    with pytest.raises(RedisAway, match="write rediss://") as told:
        await missing_permissions(redis, "uvian")
    assert not told.value.passes
    await redis.aclose()


async def test_who_only_hangs_up_is_away() -> None:
    """A proxy before a Redis that is away: it may come back."""

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    redis = redis_from_url(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0", patience=0)
    with pytest.raises(RedisAway, match="closes connections") as told:
        await missing_permissions(redis, "uvian")
    assert told.value.passes
    await redis.aclose()
    server.close()
