"""What in the environment and in ``.env`` is a setting, and what only looks like one."""

from __future__ import annotations

from pathlib import Path

import pytest

from uvian_worker.config import Config, ConfigError


def _kubernetes(service: str, port: int = 8787, name: str = "HTTP") -> dict[str, str]:
    """What every container of a namespace gets of a Service with one named port."""
    s, ip = service.upper().replace("-", "_"), "10.96.12.7"
    return {
        f"{s}_SERVICE_HOST": ip,
        f"{s}_SERVICE_PORT": str(port),
        f"{s}_SERVICE_PORT_{name}": str(port),
        f"{s}_PORT": f"tcp://{ip}:{port}",
        f"{s}_PORT_{port}_TCP": f"tcp://{ip}:{port}",
        f"{s}_PORT_{port}_TCP_PROTO": "tcp",
        f"{s}_PORT_{port}_TCP_PORT": str(port),
        f"{s}_PORT_{port}_TCP_ADDR": ip,
    }


_DOCKER_LINK = {
    "UVIAN_REDIS_NAME": "/worker/uvian-redis",
    "UVIAN_REDIS_PORT": "tcp://172.17.0.5:6379",
    "UVIAN_REDIS_PORT_6379_TCP": "tcp://172.17.0.5:6379",
    "UVIAN_REDIS_PORT_6379_TCP_ADDR": "172.17.0.5",
    "UVIAN_REDIS_PORT_6379_TCP_PORT": "6379",
    "UVIAN_REDIS_PORT_6379_TCP_PROTO": "tcp",
    "UVIAN_REDIS_ENV_REDIS_VERSION": "7.4.1",
}
SERVICES = {
    "uvian": _kubernetes("uvian"),
    "uvian-gateway": _kubernetes("uvian-gateway"),
    "uvian-redis": _kubernetes("uvian-redis", 6379, "TCP_REDIS"),
    "uvian-worker": _kubernetes("uvian-worker", 8788, "HTTP_METRICS"),
    "uvian-health": _kubernetes("uvian-health", 9000),
    "uvian-log-level": _kubernetes("uvian-log-level"),
    "udp": {"UVIAN_DNS_PORT": "udp://10.0.0.1:53", "UVIAN_DNS_PORT_53_UDP_ADDR": "10.0.0.1"},
    "ipv6": {"UVIAN_X_PORT": "tcp://[fd00::7]:80", "UVIAN_X_SERVICE_HOST": "fd00::7"},
    "docker": _DOCKER_LINK,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("service", SERVICES)
def test_the_addresses_of_services_are_no_settings(
    folder: Path, monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    """Whatever a Service is called, the worker starts as if it were not there."""
    expected = Config.load()
    for name, value in SERVICES[service].items():
        monkeypatch.setenv(name, value)
    assert Config.load() == expected


def test_a_service_that_takes_the_name_of_a_setting_is_logged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default holds, one sentence says so, and .env can set another value."""
    monkeypatch.setenv("UVIAN_GATEWAY_PORT", "tcp://10.96.12.7:8787")
    config = Config.load()
    assert config.gateway_port == 8787
    (note,) = config.notes()
    assert "UVIAN_GATEWAY_PORT" in note
    assert "8787" in note
    (folder / ".env").write_text("UVIAN_GATEWAY_PORT=9000\n")
    assert Config.load().gateway_port == 9000
    monkeypatch.setenv("UVIAN_GATEWAY_PORT", "9001")
    assert (Config.load().gateway_port, Config.load().notes()) == (9001, [])


@pytest.mark.parametrize(
    ("name", "value", "nearest"),
    [
        ("UVIAN_REDIS_ULR", "x", "UVIAN_REDIS_URL"),
        ("uvian_redis_ulr", "x", "UVIAN_REDIS_URL"),
        ("UVIAN_GATEWAY_PRT", "tcp://10.0.0.1:8787", "UVIAN_GATEWAY_PORT"),
        ("UVIAN_REDIS_PORT", "6379", "UVIAN_REDIS_URL"),
        ("UVIAN_HEALTH_NAME", "x", "UVIAN_HEALTH_"),
        ("UVIAN_SERVICE", "x", ""),
        ("UVIAN_REDIS_ENV_X", "x", ""),
    ],
)
def test_a_mistyped_name_is_refused_wherever_it_stands(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, nearest: str
) -> None:
    """In the environment and in .env, with the nearest name that there is."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"There is no setting {name}.*{nearest}"):
        Config.load()
    monkeypatch.delenv(name)
    (folder / ".env").write_text(f"# settings\n{name}={value}\n")
    with pytest.raises(ConfigError, match=rf"no setting {name} \(.env, line 2\).*{nearest}"):
        Config.load()


#: Forms in which people write a .env file; each sets the level and mistypes another.
FORMS = {
    "plain": "{}=DEBUG\n",
    "export": "export {}=DEBUG\n",
    "quoted": '{}="DEBUG"\n',
    "single": "{}='DEBUG'  # a comment\n",
    "spaces": "  {} = DEBUG\n",
    "comment": "{}=DEBUG # loud\n",
    "windows": "{}=DEBUG\r\n",
    "bom": "\ufeff{}=DEBUG\n",
    "no end": "{}=DEBUG",
    "lower case": "{}=debug",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_line_is_read_and_checked(folder: Path, form: str) -> None:
    """What sets a setting when it is right is refused when it is not."""
    file = folder / ".env"
    file.write_bytes(FORMS[form].format("UVIAN_LOG_LEVEL").encode())
    assert Config.load().log_level == "DEBUG"
    file.write_bytes(FORMS[form].format("UVIAN_LOG_LEVLE").encode())
    with pytest.raises(ConfigError, match="Did you mean UVIAN_LOG_LEVEL"):
        Config.load()


def test_the_rest_of_a_file_is_its_owners(folder: Path) -> None:
    """Names without our prefix, and lines that are comments."""
    (folder / ".env").write_text("#UVIAN_NONSENSE=1\nDATABASE_URL=x\n\nUVIAN=1\nexport A=b\n")
    assert Config.load().notes() == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'UVIAN_REDIS_URL="redis://:hidden@h\n', "line 1, cannot be read"),
        (b"A=1\nUVIAN_REDIS_URL: redis://:hidden@h\n", "line 2, cannot be read"),
        ("UVIAN_LOG_LEVEL=DEBUG\n".encode("utf-16"), "is not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(folder: Path, content: bytes, words: str) -> None:
    """By its line, and not by what stands there; nothing is skipped in silence."""
    (folder / ".env").write_bytes(content)
    with pytest.raises(ConfigError, match=words) as wrong:
        Config.load()
    assert "hidden" not in str(wrong.value)
