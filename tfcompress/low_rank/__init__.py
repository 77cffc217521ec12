"""Replace kernels by products of smaller ones."""
