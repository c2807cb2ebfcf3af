"""What settings mean together."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from redis.asyncio import Redis

from uvian_worker.config import Config, ConfigError

DIRECT = "postgresql://u:p@host:5432/x"
POOLED = "postgresql://u:p@host:6543/x"


@pytest.mark.parametrize(
    ("database_url", "direct_url", "expected"),
    [
        (DIRECT, None, DIRECT),
        ("postgresql://u:6543@host:5432/x", None, "postgresql://u:6543@host:5432/x"),
        (POOLED, None, None),
        (POOLED, DIRECT, DIRECT),
        (DIRECT, "postgresql://u:p@other/x", "postgresql://u:p@other/x"),
        (None, DIRECT, DIRECT),
        (None, None, None),
    ],
)
def test_listen_needs_a_session(
    database_url: str | None, direct_url: str | None, expected: str | None
) -> None:
    """The direct connection where there is one; never a transaction pooler."""
    config = Config.load({}, database_url=database_url, database_direct_url=direct_url)
    assert config.listen_url() == expected


PROJECT = {
    "UVIAN_SUPABASE_URL": "https://abcdefghijklmnopqrst.supabase.co",
    "UVIAN_SUPABASE_KEY": "sb_secret_x",
}


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No setting, no ``.env``, until a test sets one."""
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def _load(environment: pytest.MonkeyPatch, **settings: str) -> Config:
    for name, value in settings.items():
        environment.setenv(name, value)
    return Config.load()


@pytest.mark.parametrize(
    ("settings", "images"),
    [
        ({}, "local"),
        ({"UVIAN_DATABASE": "supabase"}, "supabase"),
        ({"UVIAN_DATABASE": '"supabase"'}, "supabase"),
        ({"UVIAN_DATABASE": "supabase", "UVIAN_IMAGES": "local"}, "local"),
        ({"UVIAN_IMAGES": "supabase"}, "supabase"),
        ({"UVIAN_DATABASE": "postgres"}, "local"),
    ],
)
def test_pictures_are_beside_the_database_unless_set_otherwise(
    environment: pytest.MonkeyPatch, settings: dict[str, str], images: str
) -> None:
    """Who has chosen the platform need not choose its Storage as well."""
    assert _load(environment, **PROJECT, **settings).images == images


@pytest.mark.parametrize("setting", ["UVIAN_DATABASE", "UVIAN_IMAGES"])
@pytest.mark.parametrize("missing", PROJECT)
def test_the_platform_needs_url_and_key(
    environment: pytest.MonkeyPatch, setting: str, missing: str
) -> None:
    """One sentence with both names, the setting that needs them, and where they are found."""
    settings = {name: value for name, value in PROJECT.items() if name != missing}
    with pytest.raises(ConfigError, match=f"{setting}=supabase needs UVIAN_SUPABASE_URL") as wrong:
        _load(environment, **settings, **{setting: "supabase"})
    assert "UVIAN_SUPABASE_KEY (Project Settings > API Keys" in str(wrong.value)


def test_the_api_is_a_database_without_a_connection_string(
    environment: pytest.MonkeyPatch,
) -> None:
    """A worker needs none, what migrates does, and says so."""
    config = _load(environment, **PROJECT, UVIAN_DATABASE="supabase")
    config.require_database()
    assert config.listen_url() is None
    with pytest.raises(ConfigError, match="does not use the API"):
        config.require_database_url()
    with pytest.raises(ConfigError, match="UVIAN_DATABASE_URL"):
        _load(environment, UVIAN_DATABASE="postgres").require_database()


@pytest.mark.parametrize("setting", ["UVIAN_DATABASE_URL", "UVIAN_DATABASE_DIRECT_URL"])
@pytest.mark.parametrize(
    "url",
    ["postgres://h:port/x", "postgresql://u:hid#den@h/x", "postgresql://u:hid/den@h/x", "hidden"],
)
def test_a_connection_string_that_cannot_be_read_is_a_sentence(
    environment: pytest.MonkeyPatch, setting: str, url: str
) -> None:
    """It names the setting and the form, and not what stands there."""
    with pytest.raises(ConfigError) as wrong:
        _load(environment, **{setting: url})
    (said,) = str(wrong.value).splitlines()
    assert said.startswith(f"{setting}: is no connection string: it reads postgresql://user")
    assert "hid" not in said


@pytest.mark.parametrize(
    "url",
    [
        "redis://default:[hidden]@h:6379",
        "redis://default:hid#den@h:6379",
        "redis://default:hid/den@h:6379/0",
        "redis://h:hidden",
        "redis://h:6379/hidden@x",
        "https://hidden.upstash.io",
        "redis://:hidden@h:6379?decode_responses=true",
        "redis://:hidden@h:6379?ssl_cert_reqs=none",
        "rediss://:hidden@h:6379?ssl_cert_reqs=maybe",
        "redis://:hidden@h?db=hidden",
        "hidden",
    ],
)
def test_a_redis_url_that_cannot_be_used_is_a_sentence(
    environment: pytest.MonkeyPatch, url: str
) -> None:
    """Before redis-py reads it, whose words would repeat what stands there."""
    with pytest.raises(ConfigError) as wrong:
        _load(environment, UVIAN_REDIS_URL=url)
    (said,) = str(wrong.value).splitlines()
    assert said.startswith("UVIAN_REDIS_URL: ")
    assert "hid" not in said


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("REDIS://:p@ss@h", "redis://:p%40ss@h"),
        ("rediss://u:p@h:6380?ssl_cert_reqs=CERT_NONE", "rediss://u:p@h:6380?ssl_cert_reqs=none"),
        ("redis://h:6379?family=0", "redis://h:6379"),
        ("redis://[::1]:6379/2", "redis://[::1]:6379/2"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
        ("unix://u:p@/run/redis.sock", "unix://u:p@/run/redis.sock"),
    ],
)
def test_a_redis_url_is_read_as_platforms_write_it(
    environment: pytest.MonkeyPatch, url: str, read: str
) -> None:
    """With what other clients put into it, and without what was not escaped."""
    config = _load(environment, UVIAN_REDIS_URL=url)
    assert config.redis_url.get_secret_value() == read
    assert Redis.from_url(read).connection_pool


def test_no_secret_is_shown(environment: pytest.MonkeyPatch) -> None:
    """Not in a repr, and not in an error."""
    secrets = {
        "UVIAN_DATABASE_URL": "postgresql://u:hidden@h/x",
        "UVIAN_SUPABASE_KEY": "sb_secret_hidden",
        "UVIAN_IMAGES_SECRET": "hidden",
        "UVIAN_REDIS_URL": "redis://u:hidden@h",
    }
    config = _load(environment, **secrets)
    assert "hidden" not in repr(config) + str(config)
    with pytest.raises(ConfigError) as wrong:
        _load(environment, UVIAN_DATABASE="supabase", UVIAN_IMAGES="nonsense")
    assert "hidden" not in str(wrong.value)
    cause = wrong.value.__cause__
    assert isinstance(cause, ValidationError)
    assert "hidden" not in str(cause)  # what a stack trace shows


def test_a_project_without_a_choice_of_the_adapter_gets_a_hint(
    environment: pytest.MonkeyPatch,
) -> None:
    """Who has set URL and key means the API: the hint names the setting that says so."""
    with pytest.raises(ConfigError, match="UVIAN_DATABASE=supabase"):
        _load(environment, **PROJECT).require_database()


@pytest.mark.parametrize("around", ["{}\n", " {} ", '"{}"', "'{}'\r\n"])
def test_what_files_and_terminals_leave_around_a_value_is_no_part_of_it(
    environment: pytest.MonkeyPatch, around: str
) -> None:
    """A secret mounted as a file ends with a line's end; `docker --env-file` keeps the quotes."""
    settings = {
        "UVIAN_DATABASE_URL": DIRECT,
        "UVIAN_REDIS_URL": "redis://h:6379/0",
        "UVIAN_SUPABASE_KEY": "sb_secret_x",
        "UVIAN_JWT_SECRETS": SECRET,
        "UVIAN_MAX_JOBS": "7",
    }
    config = _load(environment, **{name: around.format(value) for name, value in settings.items()})
    assert config.require_database_url() == DIRECT
    assert config.redis_url.get_secret_value() == "redis://h:6379/0"
    assert config.supabase_key
    assert config.supabase_key.get_secret_value() == "sb_secret_x"
    assert config.token_secrets() == [SECRET]
    assert config.max_jobs == 7


@pytest.mark.parametrize("nothing", ["", '""', "''", " ", "\n"])
def test_a_setting_that_is_empty_is_not_set(environment: pytest.MonkeyPatch, nothing: str) -> None:
    """As a variable of a deployment that has no value for it; with the quotes that docker keeps."""
    names = ("DATABASE_URL", "REDIS_URL", "HEALTH_PORT", "DATABASE", "JWT_SECRETS", "IMAGE_MODEL")
    config = _load(environment, **{f"UVIAN_{name}": nothing for name in names})
    assert config == Config.load({}, database="postgres")
    assert config.database_url is None


# ─── the gateway ─────────────────────────────────────────────────────────────────────────────────

SECRET = "a-legacy-secret-of-at-least-thirty-two-characters"


def test_a_project_says_where_its_keys_are_and_who_issues_tokens(
    environment: pytest.MonkeyPatch,
) -> None:
    """Both come from the project's URL; each can be set otherwise."""
    config = _load(environment, UVIAN_SUPABASE_URL="https://x.supabase.co/")
    assert config.token_keys_url() == "https://x.supabase.co/auth/v1/.well-known/jwks.json"
    assert config.token_issuer() == "https://x.supabase.co/auth/v1"
    config = _load(environment, UVIAN_JWKS_URL="http://kong/jwks", UVIAN_JWT_ISSUER="http://me")
    assert (config.token_keys_url(), config.token_issuer()) == ("http://kong/jwks", "http://me")


def test_a_gateway_that_could_verify_no_token_says_what_is_missing(
    environment: pytest.MonkeyPatch,
) -> None:
    """A project, or the secret that it signs with."""
    with pytest.raises(ConfigError, match=r"UVIAN_SUPABASE_URL.*UVIAN_JWT_SECRETS"):
        _load(environment).require_tokens()
    _load(environment, UVIAN_JWT_SECRETS=SECRET).require_tokens()


def test_secrets_and_origins_are_lists(environment: pytest.MonkeyPatch) -> None:
    """Separated by commas, with or without spaces; empty ones are none."""
    config = _load(
        environment,
        UVIAN_JWT_SECRETS=f"{SECRET}, {SECRET}2,",
        UVIAN_GATEWAY_ORIGINS="https://app.example/, http://localhost:3000",
    )
    assert config.token_secrets() == [SECRET, f"{SECRET}2"]
    assert config.origins() == {"https://app.example", "http://localhost:3000"}


@pytest.mark.parametrize(
    ("text", "secrets"),
    [
        (f"{SECRET}/", [f"{SECRET}/"]),
        (f"{SECRET}==", [f"{SECRET}=="]),
        (f'["{SECRET},x", "{SECRET}/"]', [f"{SECRET},x", f"{SECRET}/"]),
        (f' ["{SECRET}"] ', [SECRET]),
        ("[]", []),
    ],
)
def test_a_secret_may_hold_what_it_likes(
    environment: pytest.MonkeyPatch, text: str, secrets: list[str]
) -> None:
    """It may end in a slash; with a comma in it, it stands in a JSON list."""
    assert _load(environment, UVIAN_JWT_SECRETS=text).token_secrets() == secrets


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"UVIAN_JWT_SECRETS": "short" * 4 + "," + "short" * 4}, "as a JSON list"),
        ({"UVIAN_JWT_SECRETS": '["short'}, "is no JSON list"),
        ({"UVIAN_JWKS_URL": "https://[ref].supabase.co/x"}, "without brackets"),
        ({"UVIAN_SUPABASE_URL": "x.supabase.co"}, "UVIAN_SUPABASE_URL"),
        ({"UVIAN_JWT_SECRETS": "short"}, "at least 32 characters"),
        ({"UVIAN_WAKE_SECRET": "short"}, "UVIAN_WAKE_SECRET needs at least 16 characters"),
        ({"UVIAN_GATEWAY_ORIGINS": "app.example"}, "app.example is not an origin"),
        ({"UVIAN_GATEWAY_ORIGINS": "https://app.example/path"}, "without a path"),
        ({"UVIAN_GATEWAY_ORIGINS": "https://u:p@app.example"}, "not an origin"),
        ({"UVIAN_GATEWAY_PORT": "70000"}, "UVIAN_GATEWAY_PORT"),
        ({"UVIAN_LIMIT_WRITE": "0"}, "UVIAN_LIMIT_WRITE"),
        ({"UVIAN_GATEWAY_MAX_BODY": "1"}, "UVIAN_GATEWAY_MAX_BODY"),
        ({"UVIAN_IMAGES_URL": "/v1/files", "UVIAN_IMAGES_SECRET": "x" * 16}, "UVIAN_IMAGES_URL"),
    ],
    ids=str,
)
def test_what_a_gateway_cannot_work_with_is_named(
    environment: pytest.MonkeyPatch, settings: dict[str, str], words: str
) -> None:
    """The setting and what it has to be, and not what it is."""
    with pytest.raises(ConfigError, match=words) as error:
        _load(environment, **settings)
    assert "short" not in str(error.value)
