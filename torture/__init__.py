"""Faults on purpose: what an index must survive. Not in the wheel; `make torture`, and short versions in the tests."""
