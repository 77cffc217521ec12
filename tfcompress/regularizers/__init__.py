"""Penalties on weights, for a built model."""
