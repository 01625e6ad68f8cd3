"""Searches on a simulated cluster; see ``benchmarks/scale.py``."""
