"""What a model costs: parameters, multiply-accumulates, bytes, measured latency."""
