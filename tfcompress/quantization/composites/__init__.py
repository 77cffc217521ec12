"""Layers that TFLite computes with several ops."""
