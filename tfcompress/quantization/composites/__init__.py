"""Composites: layers that TFLite computes with several ops, each with int8 tensors between them."""
