"""Search for the best GSFL-Net: one YAML file in, one checkpoint out."""
