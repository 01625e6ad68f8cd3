"""A pooling, a backbone, a loss term and a sampler for gsfl-tune."""
