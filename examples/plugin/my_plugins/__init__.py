"""A pooling, a backbone, a loss term, a transform, a sampler and a source for gsfl-tune."""
