"""The bot's settings: the token from the environment alone, and never shown."""

import pytest

from cassava_leaf_disease import cli
from cassava_leaf_disease.bot.settings import BotSettings, settings_for
from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.fire_cli import to_hydra_words

TOKEN = "123456:the-real-one"  # noqa: S105  of nobody


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASSAVA_BOT_TOKEN", f" {TOKEN}\n")


def test_a_token_is_all_that_it_takes() -> None:
    settings = settings_for(load_config())

    assert settings.token.get_secret_value() == TOKEN
    assert TOKEN not in repr(settings)
    assert settings.telegram_url == "https://api.telegram.org"
    assert (settings.api_url, settings.webhook_url) == (None, None)


def test_what_is_typed_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASSAVA_API_URL", "http://127.0.0.1:8000/")
    monkeypatch.setenv("CASSAVA_BOT_API_URL", "http://127.0.0.1:8081")
    monkeypatch.setenv("CASSAVA_BOT_PORT", "1")
    settings = settings_for(load_config(["bot.port=2", "bot.log_format=text"]))

    assert (settings.api_url, settings.telegram_url) == ("http://127.0.0.1:8000", "http://127.0.0.1:8081")
    assert (settings.port, settings.log_format) == (2, "text")
    assert settings_for(load_config(["bot.api_url=http://a:1"])).api_url == "http://a:1"


def test_the_webhook_has_a_secret_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASSAVA_BOT_WEBHOOK_URL", "https://bot.example.org/a/path")
    settings = BotSettings.load()
    assert settings.webhook_path == "/a/path"
    assert len(settings.secret_of_webhook) == 64
    assert TOKEN not in settings.secret_of_webhook
    monkeypatch.setenv("CASSAVA_BOT_WEBHOOK_SECRET", "0123456789abcdef_-")
    assert BotSettings.load().secret_of_webhook == "0123456789abcdef_-"  # noqa: S105  of nobody


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("CASSAVA_BOT_TOKEN", "my token is none", "CASSAVA_BOT_TOKEN: no token of a bot"),
        ("CASSAVA_BOT_TOKEN", "12ab:34", "CASSAVA_BOT_TOKEN: no token of a bot"),
        ("CASSAVA_BOT_API_URL", "api.telegram.org", "CASSAVA_BOT_API_URL: api.telegram.org: no address of a server"),
        ("CASSAVA_API_URL", "ftp://x", "CASSAVA_API_URL: ftp://x: no address of a server; expected `http://host:port`"),
        ("CASSAVA_BOT_WEBHOOK_URL", "http://x/y", "CASSAVA_BOT_WEBHOOK_URL: http://x/y: Telegram calls https"),
        ("CASSAVA_BOT_WEBHOOK_SECRET", "short", "CASSAVA_BOT_WEBHOOK_SECRET: expected 16 to 256 of A-Z"),
        ("CASSAVA_BOT_PORT", "70000", r"CASSAVA_BOT_PORT=70000: .*65535; expected its port"),
        ("CASSAVA_BOT_PARALLEL", "many", "CASSAVA_BOT_PARALLEL=many: .*; expected chats that are answered"),
        ("CASSAVA_LOG_LEVEL", "LOUD", "CASSAVA_LOG_LEVEL: expected one of DEBUG, INFO"),
    ],
)
def test_a_wrong_value_is_one_clear_line(name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigError, match=said) as told:
        BotSettings.load()

    assert len(str(told.value).splitlines()) == 1
    assert value not in str(told.value) or not name.endswith(("TOKEN", "SECRET"))


def test_an_unknown_name_is_refused_in_code() -> None:
    with pytest.raises(ConfigError, match="CASSAVA_BOT_TOKN: no such setting"):
        BotSettings.load({"tokn": 1})


def test_without_a_token_the_way_to_one_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CASSAVA_BOT_TOKEN")

    assert cli.main(["bot"]) == 2
    assert "CASSAVA_BOT_TOKEN is not set; expected the token that @BotFather gives" in capsys.readouterr().err


def test_the_other_door_has_the_same_keys() -> None:
    words = to_hydra_words(["bot", "--api_url", "http://a:1", "--port", "0", "--ckpt", "best.onnx"])

    assert words == ["bot", "infer.checkpoint_path=best.onnx", "bot.api_url=http://a:1", "bot.port=0"]
    load_config(words[1:])
