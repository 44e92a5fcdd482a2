"""Model files for other engines."""
