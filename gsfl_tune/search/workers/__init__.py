"""What a worker process does: trials, retrains, ranks."""
