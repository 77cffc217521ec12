"""Find the channels of the weights in a model that must be pruned together."""
