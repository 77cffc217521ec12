"""Which channels of which weights must go together, read off the graph of a model."""
