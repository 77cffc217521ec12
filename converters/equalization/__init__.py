"""Move scales between layers, so that all channels of a tensor fill its range of integers."""
