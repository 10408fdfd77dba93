"""Measuring: what a space finds, by labels."""
