"""Layers that hold layers, read down to the layers and operations inside."""
