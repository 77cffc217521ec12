"""The sparse encoding of constants."""
