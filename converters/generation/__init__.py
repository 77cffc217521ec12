"""Language models on the device: one file with prefill and decode over a key-value cache."""
