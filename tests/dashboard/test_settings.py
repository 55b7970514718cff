import pytest

from mltrading_dashboard.settings import Settings, SettingsError

GOOD = {"DATABASE_URL": "postgresql://user:hush@host/db"}


def test_defaults_are_for_this_machine():
    settings = Settings.from_environ(GOOD)
    assert (settings.environment, settings.debug, settings.threads) == (
        "local",
        False,
        4,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENVIRONMENT", "Prod!"),
        ("DASH_DEBUG", "perhaps"),
        ("DATABASE_URL", "mysql://user:hush@host/db"),
        ("DATABASE_POOL_SIZE", "0"),
        ("DATABASE_POOL_SIZE", "many"),
        ("DATABASE_SSL_REQUIRE", "maybe"),
        ("DATABASE_STATEMENT_TIMEOUT_MS", "0"),
        ("CACHE_TTL_SECONDS", "-1"),
        ("LOG_LEVEL", "loud"),
        ("COMPARISON_MODE", "perhaps"),
        ("METRICS", "closed"),
        ("HEALTH_TOKEN", "short"),
        ("ALERTS", "loud"),
        ("TRUSTED_PROXIES", "6"),
        ("RATE_LIMIT", "-1"),
        ("SLACK_WEBHOOK_URL", "hooks.slack.com/services/hush"),
        ("SMTP_URL", "mail.example.org"),
        ("MLTRADING_RELEASE", "a b"),
        ("MLTRADING_COMMIT", "xyz"),
        ("WEB_WORKERS", "1.5"),
        ("WEB_THREADS", "1000"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(name, value):
    with pytest.raises(SettingsError, match=f"{name} is .*; allowed: "):
        Settings.from_environ({**GOOD, name: value})


@pytest.mark.parametrize(("value", "open_"), [("true", True), ("off", False)])
def test_the_environment_opens_and_closes_the_comparison(value, open_):
    flags = Settings.from_environ({**GOOD, "COMPARISON_MODE": value}).flags
    assert flags.opens("compare") is open_
    assert flags.opens("charts")


def test_a_flag_that_nobody_sets_is_closed():
    assert not Settings.from_environ(GOOD).flags.opens("compare")


def test_a_missing_database_is_named():
    with pytest.raises(SettingsError, match="DATABASE_URL is not set; allowed: "):
        Settings.from_environ({})


def test_debug_is_refused_in_prod():
    with pytest.raises(SettingsError, match="false in prod"):
        Settings.from_environ({**GOOD, "ENVIRONMENT": "prod", "DASH_DEBUG": "true"})


def test_a_password_is_known_as_it_is_written_and_as_it_is_said():
    coded = {"DATABASE_URL": "postgresql://user:p%40ss%2Fword@host/db"}
    assert {"p%40ss%2Fword", "p@ss/word"} <= {*Settings.from_environ(coded).secrets}


@pytest.mark.parametrize(
    ("environment", "said", "metrics"),
    [
        ("local", {}, "open"),
        ("prod", {}, "token"),
        ("staging", {}, "token"),
        ("prod", {"METRICS": "open"}, "open"),
    ],
)
def test_metrics_are_closed_to_strangers_unless_it_is_said(environment, said, metrics):
    given = {**GOOD, "ENVIRONMENT": environment, **said}
    assert Settings.from_environ(given).metrics == metrics


def test_the_password_is_in_no_message():
    with pytest.raises(SettingsError) as error:
        Settings.from_environ({"DATABASE_URL": "mysql://user:hush@host/db"})
    assert "hush" not in str(error.value)
    assert "hush" not in repr(Settings.from_environ(GOOD))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HEALTH_TOKEN", "hush-0123456789abcdef"),
        ("SLACK_WEBHOOK_URL", "https://hooks.example.org/hush"),
        ("SMTP_URL", "smtp://user:hush@mail.example.org"),
    ],
)
def test_a_secret_is_taken_and_never_shown(name, value):
    settings = Settings.from_environ({**GOOD, name: value})
    assert getattr(settings, name.lower()) == value
    assert "hush" not in repr(settings)
    with pytest.raises(SettingsError) as error:
        Settings.from_environ({**GOOD, name: f"hush {value}"})
    assert "hush" not in str(error.value)
