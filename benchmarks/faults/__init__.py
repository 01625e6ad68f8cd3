"""Searches on a real cluster whose parts are killed: ``python -m benchmarks.faults``."""
