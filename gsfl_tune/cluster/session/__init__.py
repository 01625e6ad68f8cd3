"""The Ray that a search runs on: started or joined, with how many trials at once."""
