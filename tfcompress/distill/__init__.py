"""Distillation losses for `tfcompress.Distiller`, on top of `keras.distillation`."""

from .losses import AttentionMaps, AttentionScores, Features
from .soft_targets import SoftTargets

__all__ = ["AttentionMaps", "AttentionScores", "Features", "SoftTargets"]
