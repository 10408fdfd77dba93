"""Duplicates: files that show the same, in tiers with a promise each; what to keep, and how the rest goes."""
