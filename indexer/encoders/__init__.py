"""Backends that run a vision transformer. The only modules that import torch."""
