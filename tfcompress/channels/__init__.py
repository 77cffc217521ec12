"""Channel pruning: which channels can only go together, and a smaller model without them."""
