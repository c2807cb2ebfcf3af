"""What settings mean together."""

from __future__ import annotations

from pathlib import Path

import pytest

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
        ({"UVIAN_DATABASE": "supabase", "UVIAN_IMAGES": "local"}, "local"),
        ({"UVIAN_IMAGES": "supabase"}, "supabase"),
        ({"UVIAN_DATABASE": "postgres"}, "local"),
    ],
)
def test_pictures_are_beside_the_database_unless_said_otherwise(
    environment: pytest.MonkeyPatch, settings: dict[str, str], images: str
) -> None:
    """Who has chosen the platform need not choose its Storage as well."""
    assert _load(environment, **PROJECT, **settings).images == images


@pytest.mark.parametrize("setting", ["UVIAN_DATABASE", "UVIAN_IMAGES"])
@pytest.mark.parametrize("missing", PROJECT)
def test_the_platform_needs_url_and_key(
    environment: pytest.MonkeyPatch, setting: str, missing: str
) -> None:
    """One sentence with both names, the setting that asks for them, and where they are found."""
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
    with pytest.raises(ConfigError, match="past the API"):
        config.require_database_url()
    with pytest.raises(ConfigError, match="UVIAN_DATABASE_URL"):
        _load(environment, UVIAN_DATABASE="postgres").require_database()


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
