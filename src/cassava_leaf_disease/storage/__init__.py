"""Getting and putting files."""
