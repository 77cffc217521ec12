"""Find which channels of which weights must be pruned together, in the graph of a model."""
