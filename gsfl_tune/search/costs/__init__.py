"""What trials cost, and what a given time allows."""
