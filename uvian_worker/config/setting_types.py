"""Types of settings: what a value may be, checked when it is read."""

from __future__ import annotations

__all__ = [
    "BaseUrl",
    "EndpointId",
    "Key",
    "LogLevel",
    "ModelPath",
    "Networks",
    "Origins",
    "PerMinute",
    "PostgresUrl",
    "RedisUrl",
    "Seconds",
    "Secrets",
    "WebAddress",
    "completed",
    "listed",
    "names_in",
    "networks_in",
    "numbers_in",
    "order",
    "secrets_in",
]

import json
import math
import re
from ipaddress import ip_network
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from uvian_common import dsn
from uvian_worker.redis import url as redis_url

Seconds = Annotated[float, Field(gt=0)]
PerMinute = Annotated[int, Field(ge=1)]

_ORIGIN: Final = re.compile(r"https?://[^/?#@\s;,'\"<>\[\]]+")


def names_in(text: str) -> tuple[str, ...]:
    """The names in a setting like `openai,local`."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def numbers_in(text: str) -> dict[str, float]:
    """The numbers in a setting like `connect=10,total=600`."""
    pairs = (pair.partition("=") for pair in names_in(text))
    return {name.strip(): float(value) for name, _, value in pairs}


def listed(text: str) -> list[str]:
    """Addresses separated by commas, without the slash that ends them."""
    return [name.rstrip("/") for name in names_in(text)]


#: Of this machine, of private networks (RFC 1918, 4193, 6598), and of one link.
_PRIVATE: Final = (
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
)


def networks_in(text: str) -> list[str]:
    """Networks separated by commas; `private` means all networks that the internet does not route."""
    names = names_in(text)
    private = _PRIVATE if "private" in names else ()
    return [*private, *(name for name in names if name != "private")]


def _networks(text: str) -> str:
    for network in networks_in(text):
        try:
            ip_network(network, strict=False)
        except ValueError:
            raise ValueError(
                f"{network} is no network; one reads 203.0.113.0/24, or private"
            ) from None
    return text


def secrets_in(text: str) -> list[str]:
    """Secrets separated by commas, or a JSON list: there a comma may be part of one."""
    if not text.lstrip().startswith("["):
        return list(names_in(text))
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise ValueError('begins with [ and is no JSON list: one reads ["a secret", "another"]')
    return [each for each in found if each]


def order(*known: str) -> AfterValidator:
    """Names out of ``known``, each once, in the order of preference."""

    def check(text: str) -> str:
        names = names_in(text)
        for name in names:
            if name not in known:
                raise ValueError(f"there is no provider {name!r} for this, only {', '.join(known)}")
        if len(set(names)) < len(names):
            raise ValueError(f"{text!r} names a provider twice")
        return ",".join(names)

    return AfterValidator(check)


def completed(text: str, numbers: dict[str, float]) -> str:
    """A group of numbers, completed by those of ``numbers`` that it leaves out."""
    try:
        given = numbers_in(text)
    except ValueError:
        given = {"": 0}
    if unknown := set(given) - set(numbers):
        form = ",".join(f"{name}=…" for name in numbers)
        raise ValueError(f"must be numbers like {form}, not {min(unknown) or text!r}")
    numbers = {**numbers, **given}
    if any(not 0 < number < math.inf for number in numbers.values()):
        raise ValueError("must be numbers above 0")
    if "total" in numbers and not numbers["connect"] <= numbers["first_byte"] <= numbers["total"]:
        raise ValueError("connect must not be longer than first_byte, nor that longer than total")
    if not numbers.get("concurrency", 1.0).is_integer():
        raise ValueError("concurrency must be a whole number")
    return ",".join(f"{name}={number:g}" for name, number in numbers.items())


def _postgres_url(text: SecretStr) -> SecretStr:
    return SecretStr(dsn.read(text.get_secret_value()).text)


def _redis_url(text: SecretStr) -> SecretStr:
    return SecretStr(redis_url.readable(text.get_secret_value()))


def _secrets(text: SecretStr) -> SecretStr:
    secrets_in(text.get_secret_value())
    return text


def _web_address(text: str) -> str:
    if _ORIGIN.match(text) is None:
        raise ValueError("is no web address: it begins with https:// and a host, without brackets")
    return text


def _origins(text: str) -> str:
    for origin in listed(text):
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"{origin} is not an origin; one reads https://app.example or "
                "http://localhost:3000, without a path"
            )
    return text


def _level(text: Any) -> Any:
    level = text.upper() if isinstance(text, str) else text
    return "WARNING" if level == "WARN" else level


def _base_url(text: str) -> str:
    try:
        url = urlsplit(text)
        plain = url.hostname and not (url.query or url.fragment or "@" in url.netloc)
    except ValueError:  # its text would repeat the value
        plain = False
    if not plain or _ORIGIN.match(text) is None:
        raise ValueError("must be like https://host/path, without a name, a key or a question mark")
    return text.rstrip("/")


def _header_value(key: SecretStr) -> SecretStr:
    text = key.get_secret_value().strip()
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("is no key: it has spaces or special characters in it")
    return SecretStr(text)


Networks = Annotated[str, AfterValidator(_networks)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
Key = Annotated[SecretStr, AfterValidator(_header_value)]
EndpointId = Annotated[str, Field(pattern=r"^[\w-]+$")]
ModelPath = Annotated[str, Field(pattern=r"^[\w.-]+(/[\w.-]+)+$")]

PostgresUrl = Annotated[SecretStr, AfterValidator(_postgres_url)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
Secrets = Annotated[SecretStr, AfterValidator(_secrets)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
Origins = Annotated[str, AfterValidator(_origins)]
LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_level)]
