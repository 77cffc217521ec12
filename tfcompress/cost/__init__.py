"""What a model costs: parameters, multiply-accumulates, bytes, measured latency."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["budgets"])
