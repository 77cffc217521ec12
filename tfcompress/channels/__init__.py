"""Cut whole channels, units and heads out of a model."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["importance"])
