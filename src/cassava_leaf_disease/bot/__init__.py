"""The door in Telegram: photos in, answers in the user's language out."""
