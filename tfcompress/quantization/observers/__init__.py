"""Observers: how the range of a tensor follows its values, by name.

An observer of your own is registered by any module that is imported before it is named. To add one
to this package, put it into a module beside these and import that here.
"""

from . import learned, minmax, moving_average

__all__ = ["learned", "minmax", "moving_average"]
