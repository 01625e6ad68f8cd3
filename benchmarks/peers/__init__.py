"""What people would do instead, in the same wall clock; see ``__main__.py``."""
