"""Samplers and schedulers against each other, on recorded learning curves in simulated time."""
