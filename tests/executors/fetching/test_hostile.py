"""Hostile URLs, given at once and as the target of a redirect: one sentence, and nobody comes inside."""

# ruff: noqa: RUF001 - letters that look like others are what some of these URLs are made of
from __future__ import annotations

from collections.abc import AsyncIterator
from ipaddress import ip_address
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executors.errors import InvalidInput
from executors.fetching import Fetcher
from executors.fetching.fetcher import _checked_socket
from executors.fetching.urls import REFUSED, Rules
from tests.executors.fetching.internet import INSIDE, PUBLIC, Internet, plain


class Target(NamedTuple):
    """What a URL is filled in with."""

    inside: int  #: port of the server inside
    public: int  #: port of the server that is public


#: Names, and where they lead.
NAMES = {
    "localhost.localdomain": [INSIDE],
    "app.localhost": [INSIDE],
    "metadata.google.internal": [ip_address("169.254.169.254")],
    "127.0.0.1.wildcard.example": [INSIDE],
    "inside.example": [INSIDE],
    "private.example": [ip_address("10.1.2.3")],
    "mixed.example": [PUBLIC, INSIDE],
    "mixed-6.example": [PUBLIC, ip_address("::1")],
    "six.example": [ip_address("::1")],
    "mapped.example": [ip_address("::ffff:127.0.0.1")],
    "nat64.example": [ip_address("64:ff9b::7f00:1")],
    "6to4.example": [ip_address("2002:7f00:1::")],
    "link-local.example": [ip_address("fe80::1%1")],
    "zero.example": [ip_address("0.0.0.0")],
    "empty.example": [],
}

#: Hosts that lead inside, or would in one reading or another.
HOSTS = [
    # IPv4 in all the notations that inet_aton takes
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "127.000.000.001",
    "0",
    "0.0.0.0",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0x7f.0x0.0x0.0x1",
    "017700000001",
    "0177.0.0.1",
    "0177.0.0.01",
    "00000177.0.0.1",
    "127.255.255.254",
    "2852039166",
    "0xA9FEA9FE",
    "0251.0376.0251.0376",
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "999.1.1.1",
    "1.2.3.4.5",
    # IPv6, and IPv4 in it
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "[::ffff:169.254.169.254]",
    "[::127.0.0.1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::a9fe:a9fe]",
    "[2002:7f00:1::]",
    "[2001:0:4136:e378:8000:63bf:3fff:fdd2]",
    "[fe80::1]",
    "[fe80::1%25lo]",
    "[::1%25lo]",
    "[fd00:ec2::254]",
    "[fc00::1]",
    "[ff02::1]",
    "[v1.127]",
    # letters and digits that become others
    "１２７.0.0.1",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "１２７．１",
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
    "loc\u00adalhost",
    "127.0.0.1\u200b",
    "127.0.0.1%00.public.example",
    "%31%32%37.0.0.1",
    "127.0.0.1%2f.public.example",
    # names
    "localhost",
    "LOCALHOST",
    "localhost.",
    "redis",
    "a..example",
    "-.example",
    "public.example:80:80",
    *NAMES,
    "nowhere.example",
]

#: Whole URLs.
URLS = [
    "",
    "127.0.0.1:{inside}",
    "https:",
    "https://",
    "https:///etc/passwd",
    "http:127.0.0.1:{inside}",
    "//127.0.0.1:{inside}/",
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "file://localhost/etc/passwd",
    "file://public.example:{public}/etc/passwd",
    "url:file:///etc/passwd",
    "ftp://public.example:{public}/",
    "gopher://127.0.0.1:{inside}/_SET%20a%20b",
    "dict://127.0.0.1:{inside}/info",
    "ldap://public.example:{public}/",
    "ws://public.example:{public}/",
    "http+unix://%2fvar%2frun%2fdocker.sock/info",
    "unix:///var/run/docker.sock",
    "data:image/png;base64,AAAA",
    "javascript:alert(1)",
    "blob:http://public.example:{public}/1",
    # somebody's name and password, and hosts that look like them
    "http://user:secret@public.example:{public}/",
    "http://user@public.example:{public}/",
    "http://:secret@public.example:{public}/",
    "http://@public.example:{public}/",
    "http://public.example:{public}@127.0.0.1:{inside}/",
    "http://127.0.0.1:{inside}@public.example:{public}/",
    "http://public.example@@127.0.0.1:{inside}/",
    "http://127.0.0.1:{inside}\\@public.example:{public}/",
    "http://public.example:{public}\\@127.0.0.1:{inside}/",
    "http:\\\\127.0.0.1:{inside}\\",
    # what a header, a log or another parser would read differently
    "http://public.example:{public}/\r\nHost: inside",
    "http://public.example:{public}/ HTTP/1.1",
    "http://public.example:{public}/\0",
    "http://public.example:{public}/\t",
    "ht\ntp://127.0.0.1:{inside}/",
    " http://127.0.0.1:{inside}/",
    "http://public.example:{public}/\u202e",
    "http://public.example:{public}/\ud800",
    # ports
    "http://public.example:0/",
    "http://public.example:99999/",
    "http://public.example:-1/",
    "http://public.example:8o/",
    "http://public.example:{public}/" + "a" * 2100,
]

HOSTILE = [f"http://{host}:{{inside}}/" for host in HOSTS] + URLS

#: Where a redirect leads when it names no other server: not hostile there.
_RELATIVE = {"", "127.0.0.1:{inside}", "https:", "http:127.0.0.1:{inside}"}


def filled(url: str, internet: Internet) -> str:
    """The URL with the ports of this test."""
    return url.replace("{inside}", str(internet.inside_port)).replace(
        "{public}", str(internet.port)
    )


@pytest.fixture(autouse=True)
def _names(internet: Internet) -> None:
    internet.names |= NAMES


def test_the_list_is_long_enough() -> None:
    """Forty are promised."""
    assert len(set(HOSTILE)) == len(HOSTILE) >= 120


@pytest.mark.parametrize("url", HOSTILE)
async def test_a_hostile_url(internet: Internet, fetcher: Fetcher, url: str) -> None:
    """The same sentence for each of them, and no connection to anywhere."""
    with pytest.raises(InvalidInput) as refusal:
        await fetcher.fetch(filled(url, internet), max_bytes=1000)
    assert str(refusal.value) == REFUSED
    assert internet.intruders == 0
    assert internet.asked == []


@pytest.mark.parametrize("url", [url for url in HOSTILE if url not in _RELATIVE])
async def test_a_hostile_redirect(internet: Internet, fetcher: Fetcher, url: str) -> None:
    """A public server that leads to one of them gets no further."""
    location = filled(url, internet)
    if any(ord(c) < 32 for c in location):
        pytest.skip("no header can carry it")
    internet.pages["/"] = plain(b"", f"Location: {location}", status="302 Found")
    internet.pages["/ HTTP/1.1"] = plain(b"never asked")
    with pytest.raises(InvalidInput) as refusal:
        await fetcher.fetch(internet.url(), max_bytes=1000)
    assert str(refusal.value) == REFUSED
    assert internet.intruders == 0
    assert [asked.target for asked in internet.asked] == ["/"]


async def test_a_long_way_inside(internet: Internet, fetcher: Fetcher) -> None:
    """The last of several redirects is checked like the first."""
    internet.pages["/"] = plain(b"", "Location: /a", status="301 Moved")
    internet.pages["/a"] = plain(b"", "Location: b?c=1", status="303 See Other")
    target = f"http://127.0.0.1:{internet.inside_port}/latest/meta-data/"
    internet.pages["/b?c=1"] = plain(b"", f"Location: {target}", status="307 Temporary")
    with pytest.raises(InvalidInput, match="may not be fetched"):
        await fetcher.fetch(internet.url(), max_bytes=1000)
    assert internet.intruders == 0
    assert len(internet.asked) == 3


class Rebinding(Internet):
    """Names that answer with what is public first, and with what is inside from then on."""

    async def lookup(self, host: str) -> list:  # type: ignore[type-arg]
        self.looked_up.append(host)
        return [PUBLIC] if len(self.looked_up) == 1 else [INSIDE]


async def test_rebinding_between_check_and_connection(internet: Internet) -> None:
    """There is no second lookup whose answer could differ: the checked address is connected to."""
    rebinding = Rebinding(port=internet.port)
    fetcher = rebinding.fetcher()
    internet.pages["/"] = plain(b"public")
    assert await fetcher.fetch(internet.url(), max_bytes=1000) == b"public"
    assert rebinding.looked_up == ["public.example"]
    await fetcher.close()


async def test_rebinding_between_redirects(internet: Internet) -> None:
    """The same name again is looked up and checked again."""
    rebinding = Rebinding(port=internet.port)
    fetcher = rebinding.fetcher()
    target = f"http://public.example:{internet.inside_port}/"
    internet.pages["/"] = plain(b"", f"Location: {target}", status="302 Found")
    with pytest.raises(InvalidInput, match="may not be fetched"):
        await fetcher.fetch(internet.url(), max_bytes=1000)
    assert rebinding.looked_up == ["public.example"] * 2
    assert internet.intruders == 0
    await fetcher.close()


async def test_the_last_gate_holds_alone(internet: Internet, fetcher: Fetcher) -> None:
    """Should a URL with an address pass the rules, its socket is refused."""
    fetcher._rules = Rules(http=True, ports=range(65536), allows=lambda _: True)
    for host in ("127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"):
        with pytest.raises(InvalidInput, match="may not be fetched"):
            await fetcher.fetch(f"http://{host}:{internet.inside_port}/", max_bytes=1000)
    assert internet.intruders == 0
    with pytest.raises(PermissionError):
        _checked_socket((2, 1, 6, "", ("127.0.0.1", 80)), lambda _: False)


async def test_the_proxies_of_the_environment_are_not_asked(
    internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy would connect for us to wherever it is told."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{internet.inside_port}")
    fetcher = internet.fetcher()
    internet.pages["/"] = plain(b"direct")
    assert await fetcher.fetch(internet.url(), max_bytes=1000) == b"direct"
    assert internet.intruders == 0
    await fetcher.close()


@pytest.fixture
async def as_shipped(internet: Internet) -> AsyncIterator[Fetcher]:
    """A fetcher as production makes it, but for its resolver."""
    fetcher = Fetcher(lookup=internet.lookup)
    yield fetcher
    await fetcher.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://public.example/",
        "https://public.example:22/",
        "https://public.example:6379/",
        "https://public.example:5432/",
        "https://public.example/",
        "https://127.0.0.2/",
    ],
)
async def test_as_shipped(internet: Internet, as_shipped: Fetcher, url: str) -> None:
    """https alone, the web's own ports, and no address of this machine."""
    with pytest.raises(InvalidInput) as refusal:
        await as_shipped.fetch(url, max_bytes=1000)
    assert str(refusal.value) == REFUSED


@settings(deadline=None)
@given(
    st.one_of(st.text(), st.text().map("https://".__add__), st.text().map("https://a.b".__add__))
)
def test_no_text_gets_another_answer(text: str) -> None:
    """Whatever is sent instead of a URL: it is one that may be looked up, or it is refused."""
    url, refusal = None, ""
    try:
        url = Rules().parse(text)
    except InvalidInput as error:
        refusal = str(error)
    if url is None:
        assert refusal == REFUSED
    else:
        assert url.scheme == "https"
        assert url.port in (443, 80, 8080, 8443)
        assert url.user is None
