"""Follow the channels of a model along its graph: positions of axes that belong together."""
