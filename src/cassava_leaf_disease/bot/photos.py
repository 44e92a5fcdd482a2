"""Which file of a message is a photo to look at, or why there is none."""

from dataclasses import dataclass
from typing import Final, Literal

from telegram import Document, Message

from cassava_leaf_disease.bot.telegram_api import MAX_FILE_BYTES

_SUFFIXES: Final = (".jpg", ".jpeg", ".png")

NoPhoto = Literal["text", "sticker", "video", "voice", "other", "not_an_image", "too_large"]


@dataclass(frozen=True)
class SentPhoto:
    """Telegram's id of a photo."""

    file: str


def photo_in(message: Message) -> SentPhoto | NoPhoto:
    """The photo of a message, at its largest; else what the message is instead."""
    if message.photo:
        return SentPhoto(max(message.photo, key=lambda size: size.width * size.height).file_id)
    if message.document and not message.animation:  # Telegram sends animations as both
        return _photo_of(message.document)
    kinds: tuple[tuple[NoPhoto, object], ...] = (
        ("video", message.animation or message.video or message.video_note),
        ("sticker", message.sticker),
        ("voice", message.voice or message.audio),
        ("text", message.text),
    )
    return next((kind for kind, content in kinds if content), "other")


def _photo_of(document: Document) -> SentPhoto | NoPhoto:
    kind, name = document.mime_type or "", (document.file_name or "").lower()
    if kind.startswith("video/"):
        return "video"
    if not kind.startswith("image/") and not name.endswith(_SUFFIXES):
        return "not_an_image"
    return "too_large" if (document.file_size or 0) > MAX_FILE_BYTES else SentPhoto(document.file_id)
