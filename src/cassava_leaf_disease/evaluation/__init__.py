"""Workflows that measure."""
