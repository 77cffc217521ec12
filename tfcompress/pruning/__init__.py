"""Prune weights: masks, patterns, scores, schedules, and the callbacks that train with them."""
