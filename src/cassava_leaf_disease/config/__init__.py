"""Typed configuration: values in YAML, meaning in the schema."""
