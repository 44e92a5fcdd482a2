"""Workflows that learn: fit, cross-validation, the demo."""
