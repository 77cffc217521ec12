"""Language models: a file with prefill and decode over a key-value cache, run token by token."""
