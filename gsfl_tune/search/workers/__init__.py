"""Tasks of a worker process: trials, retrains, ranks."""
