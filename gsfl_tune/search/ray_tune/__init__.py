"""The link to Ray Tune, which runs many trials."""
