"""Prune weights: masks, patterns, scores, schedules, and the callbacks that train with them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["masks", "schedules"])
