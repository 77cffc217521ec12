"""Follow the channels of a model along its graph: which positions of which axes belong together."""
