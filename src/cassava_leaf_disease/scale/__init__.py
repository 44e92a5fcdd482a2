"""Answers about very many photos: one file a thought, `score` is the verb."""
