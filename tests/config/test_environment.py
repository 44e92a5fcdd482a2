"""Variables that nobody reads are told, each by the door that they were meant for."""

import pytest

from cassava_leaf_disease.bot.settings import BotSettings
from cassava_leaf_disease.config.environment import EnvironmentSettings, warn_of_misspelled
from cassava_leaf_disease.serving.settings import ServingSettings

ENVIRONMENT = {
    "CASSAVA_QUEUESIZE": "1",
    "CASSAVA_BOT_MAX_WAITNG": "1",
    "CASSAVA_BOT_HOST": "::1",  # near CASSAVA_HOST, and the bot's own
    "CASSAVA_API_URL": "http://a:1",
    "CASSAVA_ROOT": "/",
    "CASSAVA_WHATEVER_ELSE": "1",
    "HOME": "/",
}
OF_THE_SERVICE = "CASSAVA_QUEUESIZE: no such setting, it is passed over; did you mean CASSAVA_QUEUE_SIZE?"
OF_THE_BOT = "CASSAVA_BOT_MAX_WAITNG: no such setting, it is passed over; did you mean CASSAVA_BOT_MAX_WAITING?"


@pytest.mark.parametrize(
    ("kinds", "told"),
    [
        ((ServingSettings,), [OF_THE_SERVICE]),
        ((BotSettings,), [OF_THE_BOT]),
        ((BotSettings, ServingSettings), [OF_THE_BOT, OF_THE_SERVICE]),
    ],
)
def test_a_misspelled_variable_is_told(
    kinds: tuple[type[EnvironmentSettings], ...], told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_misspelled(*kinds, environment=ENVIRONMENT)

    assert caplog.messages == told
