from __future__ import annotations

import pytest

from sprocket.config import Config, Flags, normalize_base_url, read_config
from sprocket.errors import ConfigError

PLATFORM = {
    "TOGETHER_API_KEY": "k-secret",
    "TOGETHER_API_BASE_URL": "api.example",
    "TOGETHER_DEPLOYMENT_NAME": "from-env",
}


def read(environ: dict[str, str], flags: Flags | None = None, **arguments: object) -> Config:
    given = {"name": None, "port": None, "queue": None, **arguments}
    return read_config(environ, flags or Flags(), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("api.example", "https://api.example"),
        ("http://127.0.0.1:8799", "http://127.0.0.1:8799"),
        ("http://127.0.0.1:8799/", "http://127.0.0.1:8799"),
        ("https://api.example/v1", "https://api.example"),
        ("api.example/v1/", "https://api.example"),
        ("https://api.example/under/v1", "https://api.example/under"),
    ],
)
def test_base_urls_get_one_form(text: str, url: str) -> None:
    assert normalize_base_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "ftp://api.example",
        "https://",
        "https:///v1",
        "http://a b",
        "http://user:pw@host",
        "http://host:port",
        "http://host:0",
        "http://[::1",
        "http://a..b",
    ],
)
def test_a_wrong_base_url_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="TOGETHER_API_BASE_URL"):
        normalize_base_url(text)


def test_flags_win_over_environment_wins_over_code() -> None:
    environ = {**PLATFORM, "PORT": "7000"}
    everything = read(environ, Flags(queue=True, port=6000, name="from-flag"), name="from-code", port=5000)
    assert (everything.port, everything.queue, everything.platform and everything.platform.deployment) == (
        6000,
        True,
        "from-flag",
    )
    no_flags = read(environ, name="from-code", port=5000)
    assert (no_flags.port, no_flags.queue, no_flags.platform and no_flags.platform.deployment) == (
        7000,
        False,
        "from-env",
    )
    code = read({**PLATFORM, "TOGETHER_DEPLOYMENT_NAME": ""}, name="from-code", port=5000, queue=True)
    assert (code.port, code.queue, code.platform and code.platform.deployment) == (5000, True, "from-code")


def test_defaults() -> None:
    config = read({})
    assert (config.port, config.queue, config.platform, config.grace_period_seconds) == (8000, False, None, 300.0)


def test_queue_mode_names_everything_that_is_missing() -> None:
    with pytest.raises(ConfigError) as raised:
        read({"TOGETHER_API_BASE_URL": "api.example"}, Flags(queue=True))
    assert "TOGETHER_API_KEY" in str(raised.value)
    assert "TOGETHER_DEPLOYMENT_NAME" in str(raised.value)
    assert "TOGETHER_API_BASE_URL" not in str(raised.value)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("PORT", "http"),
        ("PORT", "70000"),
        ("TERMINATION_GRACE_PERIOD_SECONDS", "soon"),
        ("SPROCKET_MAX_INPUT_BYTES", "-1"),
        ("TOGETHER_API_KEY", "k-secret\n"),
        ("TOGETHER_API_KEY", "k\u00e9y"),
    ],
)
def test_a_wrong_setting_is_named(key: str, text: str) -> None:
    with pytest.raises(ConfigError, match=key):
        read({**PLATFORM, key: text})


def test_the_key_is_not_printed() -> None:
    assert "k-secret" not in repr(read(PLATFORM))


def test_the_replica_id_is_the_hostname() -> None:
    platform = read({**PLATFORM, "MACHINESHOP_REPLICA_ID": "rep-1"}).platform
    assert platform
    assert platform.hostname == "rep-1"


def test_heartbeats_come_at_least_three_to_a_claim() -> None:
    platform = read({**PLATFORM, "SPROCKET_CLAIM_TIMEOUT_SECONDS": "3"}).platform
    assert platform
    assert platform.heartbeat_seconds == 1.0


def test_the_image_says_its_version_in_place_of_ours() -> None:
    told = read({**PLATFORM, "VERSION": " 2026.11-rc1\n"})
    untold = read({**PLATFORM, "VERSION": ""})
    assert told.version == "2026.11-rc1"
    assert told.platform is not None
    assert told.platform.worker_version == "2026.11-rc1"
    assert untold.platform is not None
    assert untold.platform.worker_version.startswith("sprocket/")


@pytest.mark.parametrize("version", ["1\n2", "ä", "x" * 201])
def test_a_version_that_is_no_header_is_refused(version: str) -> None:
    with pytest.raises(ConfigError, match="VERSION must be at most 200 plain characters"):
        read({"VERSION": version})


@pytest.mark.parametrize("path", ["", "generate", "/", "/a b", "/{id}", "/a//b", "/health", "/metrics", "/a?b"])
def test_a_predict_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="predict_path must be a path such as /generate"):
        read({}, predict_path=path)


def test_only_warming_up_needs_no_platform() -> None:
    config = read({"RUN_AND_EXIT": "2"}, Flags(queue=True, port=6000))
    assert (config.warmup_rounds_and_exit, config.queue, config.port) == (2, False, 0)
    assert read({"RUN_AND_EXIT": "0"}).warmup_rounds_and_exit == 0
