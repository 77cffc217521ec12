"""Quantization-aware training, and its way to an int8 file."""
