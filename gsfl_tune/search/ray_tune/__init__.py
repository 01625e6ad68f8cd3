"""Many trials by Ray Tune."""
