"""Tuning: which recipe finds best on an index's own images, without labels, and how the index changes over to it."""
