"""A pooling, a backbone, a loss term, a transform, a method, a sampler, a source: for gsfl-tune."""
