"""What weights and activations are stored and computed in: one file each."""
