"""Cut whole channels, units and heads out of a model."""
