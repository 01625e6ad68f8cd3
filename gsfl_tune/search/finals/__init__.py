"""Finalists, winner and control, after the search."""
