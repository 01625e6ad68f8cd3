"""Costs of trials, and plans for a given time."""
