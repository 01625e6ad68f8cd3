"""Samplers, which propose configurations."""
