"""One file an engine: what runs a model file."""
