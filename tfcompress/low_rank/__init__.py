"""Low-rank factorization: products of small kernels in the place of large ones."""
