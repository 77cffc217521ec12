"""Replace the kernels of a model by products of smaller ones."""
