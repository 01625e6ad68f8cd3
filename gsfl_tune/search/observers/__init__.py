"""Watchers that receive the events of a search and record them."""
