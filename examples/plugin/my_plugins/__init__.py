"""One extension of every kind for gsfl-tune."""
