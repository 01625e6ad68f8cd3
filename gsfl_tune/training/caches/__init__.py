"""Results computed from the images once per node, and kept for all trials."""
