"""Who is spoken to."""

from dataclasses import dataclass

from cassava_leaf_disease.bot.records import Task
from cassava_leaf_disease.texts.advice import Language
from cassava_leaf_disease.texts.bot import BotWords, bot_words


@dataclass(frozen=True)
class Said:
    """Who is spoken to, and in which language."""

    task: Task
    language: Language

    @property
    def words(self) -> BotWords:
        """All that is said, in that language."""
        return bot_words(self.language)
