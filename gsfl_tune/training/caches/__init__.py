"""What is computed of images once a node, and kept for all trials."""
