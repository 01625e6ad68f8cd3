"""The end of a search: finalists, winner and control."""
