"""What the ledger holds: what has come, what is to be answered, and what has been."""

import logging
from dataclasses import dataclass
from typing import Any

from cassava_leaf_disease.domain import PlantPrediction

JsonObject = dict[str, Any]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """One thing to answer: an update, or those of one album.

    `refused`: too much of the same user waited when it came. `placeholder` is the message that waits to be filled.
    """

    id: int
    chat: int
    person: int
    album: str | None
    photos: int
    received_at: float
    refused: bool
    attempts: int
    placeholder: int | None
    updates: tuple[JsonObject, ...]


@dataclass(frozen=True)
class Answer:
    """What has been answered, for the buttons below it.

    `photos` are Telegram's ids of the photos that it rests on; the last `own_photos` of them came with its own
    message, those before with earlier ones of the same plant. `correct` is what the user said: "right", a class id as
    text, or "none".
    """

    id: int
    chat: int
    person: int
    message: int
    answered_at: float
    photos: tuple[str, ...]
    own_photos: int
    plant: PlantPrediction
    receipt: str
    correct: str | None
    settled: bool


@dataclass(frozen=True)
class Arrival:
    """What the ledger has to know of an update before anybody reads it."""

    update_id: int
    chat: int
    person: int
    album: str | None
    photos: int
    body: JsonObject


def read_arrival(update: JsonObject) -> Arrival | None:
    """Who sent an update, and what; None where nobody can be answered."""
    try:
        return _read_arrival(update)
    except (KeyError, TypeError, AttributeError):  # it would come again and again if it were not taken
        _log.warning("update %d is none that this version knows, and goes without an answer", update["update_id"])
        return None


def _read_arrival(update: JsonObject) -> Arrival | None:
    press, message = update.get("callback_query"), update.get("message")
    if press is not None:
        message = press.get("message")
    person = (press or message or {}).get("from")
    if message is None or person is None or person.get("is_bot"):
        return None
    photo = press is None and ("photo" in message or "document" in message)
    return Arrival(
        update["update_id"],
        int(message["chat"]["id"]),
        int(person["id"]),
        message.get("media_group_id") if photo else None,
        int(photo),
        update,
    )
